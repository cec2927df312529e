// Links, runs, and learns the reason of a failure. Returns 0 when all is as the header says.
#include <iostream>
#include <string_view>
#include <trtllm.hpp>

int main() {
    trtllm::check_version();
    trtllm::Request request = trtllm::Request::from_text("Once upon a time");
    request.add_stop("\n").set_sampling(trtllm::Sampling());
    try {
        const trtllm::Engine engine("no/such.engine");
    } catch (const trtllm::Error &error) {
        if (error.status() != TRTLLM_STATUS_NOT_FOUND) return 1;
        if (std::string_view(error.what()).find("no/such.engine") == std::string_view::npos) return 1;
        std::cout << "libtrtllm " << trtllm_version_string() << "\n";
        return 0;
    }
    return 1;
}
