// Writes a page about an engine file: what it is, where its bytes lie, what was fused, every step, lifetimes of values,
// the KV cache and the times that chose its kernels. One HTML file without scripts, fonts or pictures from elsewhere.
//
//     report ENGINE [CHECKPOINT] [-o PAGE]       (without -o: to the standard output)
//
// In the place of the engine a file whose name ends in `.json` may hold what `trtllm_engine_inspect_file` said of it.
// With the checkpoint that the engine was built from, the page also has its network before and after the passes.
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <trtllm.hpp>

#include "json.hpp"
#include "page.hpp"

namespace {

struct Options {
    std::string engine;
    std::string checkpoint;
    std::string output;
};

Options parse(int argc, char **argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "-o" && i + 1 < argc) {
            options.output = argv[++i];
        } else if (options.engine.empty() && argument.rfind('-', 0) != 0) {
            options.engine = argument;
        } else if (options.checkpoint.empty() && argument.rfind('-', 0) != 0) {
            options.checkpoint = argument;
        } else {
            throw std::invalid_argument("unknown argument, or one without its value: " + argument);
        }
    }
    if (options.engine.empty()) throw std::invalid_argument("no engine is given");
    return options;
}

Networks networks_of(const std::string &checkpoint) {
    if (checkpoint.empty()) return {};
    trtllm::Network network = trtllm::Network::from_checkpoint(checkpoint);
    Networks networks;
    networks.before = network.text();
    network.run_passes();
    networks.after = network.text();
    return networks;
}

std::string description_of(const std::string &path) {
    const std::string ending = ".json";
    if (path.size() < ending.size() || path.compare(path.size() - ending.size(), ending.size(), ending) != 0) {
        return trtllm::Engine::inspect_file(path);
    }
    std::ifstream input(path, std::ios::binary);
    std::stringstream text;
    text << input.rdbuf();
    if (!input || !text) throw std::runtime_error("cannot read " + path);
    return text.str();
}

void report(const Options &options) {
    const Json engine = Json::parse(description_of(options.engine));
    const std::string file = options.engine.substr(options.engine.rfind('/') + 1);
    const std::string page = write_page(file, engine, networks_of(options.checkpoint));
    if (options.output.empty()) {
        std::cout << page << std::flush;
        return;
    }
    std::ofstream output(options.output, std::ios::binary);
    output << page << std::flush;
    if (!output) throw std::runtime_error("cannot write " + options.output);
}

}  // namespace

int main(int argc, char **argv) {
    try {
        trtllm::check_version();
        report(parse(argc, argv));
        return 0;
    } catch (const std::invalid_argument &error) {
        std::cerr << error.what() << "\nusage: " << argv[0] << " ENGINE [CHECKPOINT] [-o PAGE]\n";
        return 2;
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
