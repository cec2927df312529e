#include "page.hpp"

#include <trtllm.hpp>

#include "sections.hpp"
#include "style.hpp"

namespace {

void write_head(Html &html, const std::string &title) {
    html.element("head", {}, [&] {
        html.empty("meta", {{"charset", "utf-8"}});
        // Should a name of the engine ever escape its quotes, nothing runs and nothing is fetched.
        html.empty("meta", {{"http-equiv", "Content-Security-Policy"},
                            {"content", "default-src 'none'; style-src 'unsafe-inline'"}});
        html.empty("meta", {{"name", "viewport"}, {"content", "width=device-width, initial-scale=1"}});
        html.empty("meta", {{"name", "color-scheme"}, {"content", "light dark"}});
        html.element("title", title);
        html.element("style", {}, [&] { html.literal(style); });
    });
}

void write_link(Html &html, const char *section, const char *name) {
    html.element("a", {{"href", std::string("#") + section}}, name);
}

void write_header(Html &html, const std::string &file, const Json &engine, const Networks &networks) {
    html.element("header", {}, [&] {
        html.element("h1", engine["model"]["architecture"].text());
        html.element("p", file);
        html.element("nav", {}, [&] {
            write_link(html, "memory", "Memory");
            write_link(html, "fusions", "Fusions");
            write_link(html, "plan", "Plan");
            write_link(html, "workspace", "Workspace and cache");
            if (!engine["build"]["kernels"].is_null()) write_link(html, "tactics", "Kernels and tactics");
            if (!networks.before.empty()) write_link(html, "network", "Network");
        });
    });
}

}  // namespace

std::string write_page(const std::string &file, const Json &engine, const Networks &networks) {
    const Plan plan(engine);
    Html html;
    html.literal("<!DOCTYPE html>\n");
    html.element("html", {{"xmlns", "http://www.w3.org/1999/xhtml"}, {"lang", "en"}}, [&] {
        write_head(html, file + ", an engine of libtrtllm");
        html.element("body", {}, [&] {
            write_header(html, file, engine, networks);
            html.element("main", {}, [&] {
                write_facts(html, engine, plan);
                write_memory(html, engine, plan);
                write_fusions(html, engine);
                write_steps(html, plan);
                write_workspace(html, engine, plan);
                write_tactics(html, engine);
                if (!networks.before.empty()) write_network(html, networks.before, networks.after);
            });
            html.element("footer", std::string("Described by libtrtllm ") + trtllm_version_string());
        });
    });
    return html.page();
}
