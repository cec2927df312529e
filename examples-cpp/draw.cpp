// Draws the network of a checkpoint, or of a lone config.json, for Graphviz: as it is, or after the compiler's passes.
//
//     draw CHECKPOINT [--fused] | dot -Tsvg -o network.svg
#include <iostream>
#include <string_view>
#include <trtllm.hpp>

int main(int argc, char **argv) {
    const bool fused = argc == 3 && std::string_view(argv[2]) == "--fused";
    if (argc != (fused ? 3 : 2)) {
        std::cerr << "usage: " << argv[0] << " CHECKPOINT [--fused]\n";
        return 2;
    }
    try {
        trtllm::check_version();
        trtllm::Network network = trtllm::Network::from_checkpoint(argv[1]);
        if (fused) network.run_passes();
        std::cout << network.dot();
        return 0;
    } catch (const trtllm::Error &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
