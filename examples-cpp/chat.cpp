// A chat in the terminal, or through a pipe: one line is one message, the answer is streamed.
//
//     chat ENGINE [--temperature T] [--max-tokens N] [--seed N] [--system TEXT]
//
// Ctrl-C ends an answer early. /reset forgets the conversation, /quit or the end of the input leaves.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <trtllm.hpp>
#include <vector>

namespace {

struct Options {
    std::string engine;
    std::string system;
    std::string temperature;
    std::string max_tokens;
    std::string seed;
};

Options parse(int argc, char **argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view name = argv[i];
        std::string *value = name == "--temperature"  ? &options.temperature
                             : name == "--max-tokens" ? &options.max_tokens
                             : name == "--seed"       ? &options.seed
                             : name == "--system"     ? &options.system
                                                      : nullptr;
        if (value && i + 1 < argc) {
            *value = argv[++i];
        } else if (!value && options.engine.empty() && name.substr(0, 1) != "-") {
            options.engine = name;
        } else {
            throw std::invalid_argument("unknown argument, or one without its value: " + std::string(name));
        }
    }
    if (options.engine.empty()) throw std::invalid_argument("no engine is given");
    return options;
}

template <typename Number, typename Parse>
void set(Number &target, const std::string &text, Parse parse) {
    if (text.empty()) return;
    char *end = nullptr;
    target = static_cast<Number>(parse(text.c_str(), &end));
    if (*end != '\0') throw std::invalid_argument("not a number: " + text);
}

// The model's own recommendation, changed by what the user asked for.
trtllm::Sampling sampling(const trtllm::Engine &engine, const Options &options) {
    const auto integer = [](const char *text, char **end) { return std::strtoull(text, end, 10); };
    trtllm::Sampling sampling = engine.sampling();
    sampling.max_tokens = 512;
    set(sampling.temperature, options.temperature, [](const char *text, char **end) { return std::strtof(text, end); });
    set(sampling.max_tokens, options.max_tokens, integer);
    set(sampling.seed, options.seed, integer);
    return sampling;
}

std::string quoted(std::string_view text) {
    std::string json = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            json += '\\';
            json += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
            json += escape;
        } else {
            json += c;
        }
    }
    return json + '"';
}

class Conversation {
   public:
    explicit Conversation(std::string system) : system_(std::move(system)) { reset(); }

    void reset() {
        messages_.clear();
        if (!system_.empty()) add("system", system_);
    }
    void add(std::string_view role, std::string_view content) {
        messages_.push_back("{\"role\":" + quoted(role) + ",\"content\":" + quoted(content) + "}");
    }
    void drop_last() { messages_.pop_back(); }

    std::string json() const {
        std::string array;
        for (const std::string &message : messages_) array += (array.empty() ? "" : ",") + message;
        return "[" + array + "]";
    }

   private:
    std::string system_;
    std::vector<std::string> messages_;
};

volatile sig_atomic_t interrupted = 0;

// Ctrl-C belongs to the answer while there is one; outside it ends the program as ever.
class InterruptGuard {
   public:
    InterruptGuard() {
        interrupted = 0;
        struct sigaction action = {};
        action.sa_handler = [](int) { interrupted = 1; };
        action.sa_flags = SA_RESTART;
        sigaction(SIGINT, &action, &before_);
    }
    ~InterruptGuard() { sigaction(SIGINT, &before_, nullptr); }
    InterruptGuard(const InterruptGuard &) = delete;
    InterruptGuard &operator=(const InterruptGuard &) = delete;

   private:
    struct sigaction before_;
};

// Streams the answer to the conversation and returns it. Leaving the loop early cancels the request.
std::string answer(trtllm::Executor &executor, const Conversation &conversation, const trtllm::Sampling &sampling) {
    const InterruptGuard guard;
    std::string text;
    trtllm::Request request = trtllm::Request::from_chat(conversation.json());
    for (const trtllm::Response &response : executor.stream(request.set_sampling(sampling))) {
        std::cout << response.text() << std::flush;
        text += response.text();
        if (interrupted) break;
    }
    return text;
}

void chat(const Options &options) {
    const trtllm::Engine engine(options.engine);
    const trtllm::Sampling how = sampling(engine, options);
    trtllm::Executor executor(engine);
    Conversation conversation(options.system);
    const bool terminal = isatty(STDIN_FILENO) != 0;

    for (std::string line;;) {
        if (terminal) std::cout << "> " << std::flush;
        if (!std::getline(std::cin, line) || line == "/quit") return;
        if (line.empty()) continue;
        if (line == "/reset") {
            conversation.reset();
            continue;
        }
        conversation.add("user", line);
        try {
            conversation.add("assistant", answer(executor, conversation, how));
            std::cout << "\n\n" << std::flush;
        } catch (const trtllm::Error &error) {
            conversation.drop_last();
            if (error.status() == TRTLLM_STATUS_REQUEST_TOO_LARGE) {
                std::cerr << "the conversation has become too long; /reset begins a new one\n";
            } else {
                std::cerr << error.what() << "\n";
            }
        }
    }
}

}  // namespace

int main(int argc, char **argv) {
    try {
        trtllm::check_version();
        chat(parse(argc, argv));
        return 0;
    } catch (const std::invalid_argument &error) {
        std::cerr << error.what() << "\nusage: " << argv[0]
                  << " ENGINE [--temperature T] [--max-tokens N] [--seed N] [--system TEXT]\n";
        return 2;
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
