#include "decode.hpp"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "clock.hpp"

namespace {

Steps between(const trtllm_executor_stats &begin, const trtllm_executor_stats &end) {
    const auto seconds = [](std::uint64_t from, std::uint64_t to) { return static_cast<double>(to - from) / 1e9; };
    Steps steps;
    steps.count = end.iterations - begin.iterations;
    steps.wall_s = seconds(begin.busy_ns, end.busy_ns);
    steps.device_s = seconds(begin.device_busy_ns, end.device_busy_ns);
    steps.idle_s = seconds(begin.device_idle_ns, end.device_idle_ns);
    return steps;
}

// One run of requests that begin together.
class Run {
   public:
    Run(trtllm::Executor &executor, const std::vector<trtllm::Request> &requests, std::uint32_t output)
        : executor_(executor), output_(output) {
        for (const trtllm::Request &request : requests) delivered_.emplace(executor.submit(request), Delivered());
    }

    // Takes responses until all requests have ended.
    void finish() {
        // Room for a few steps, for a client that comes late.
        const std::size_t most_responses = 4 * delivered_.size();
        std::size_t ended = 0;
        while (ended < delivered_.size()) {
            const std::vector<trtllm::Response> responses = executor_.await_many(most_responses);
            const Clock::time_point now = Clock::now();
            for (const trtllm::Response &response : responses) {
                response.check();
                delivered_.at(response.request_id()).fresh += response.tokens().size();
                ended += response.last() ? 1 : 0;
            }
            for (auto &[id, request] : delivered_) settle(request, now);
            if (!opened_ && begun_ == delivered_.size() && most_ + 1 < output_) open(now);
            if (opened_ && !steps_ && most_ + 1 >= output_) steps_ = between(begin_, executor_.stats());
        }
        if (!steps_ || intervals_.empty()) {
            throw std::runtime_error("no step had all " + std::to_string(delivered_.size()) +
                                     " requests in decode: --output must be longer, or --batch or --kv-tokens larger");
        }
    }

    const std::vector<double> &intervals() const { return intervals_; }
    const Steps &steps() const { return *steps_; }

   private:
    struct Delivered {
        std::size_t tokens = 0;
        // Since `at`, when the others were in the client's hands.
        std::size_t fresh = 0;
        Clock::time_point at;
    };

    // A client that comes late gets several tokens at once: each of them then took its share of the time.
    void settle(Delivered &request, Clock::time_point now) {
        const std::size_t tokens = std::exchange(request.fresh, 0);
        if (tokens == 0) return;
        if (opened_ && !steps_ && request.at >= *opened_) {
            intervals_.insert(intervals_.end(), tokens, seconds_between(request.at, now) / static_cast<double>(tokens));
        }
        begun_ += request.tokens == 0 ? 1 : 0;
        request.tokens += tokens;
        request.at = now;
        most_ = std::max(most_, request.tokens);
    }

    void open(Clock::time_point now) {
        opened_ = now;
        begin_ = executor_.stats();
    }

    trtllm::Executor &executor_;
    std::size_t output_;
    std::unordered_map<std::uint64_t, Delivered> delivered_;
    // Requests with a token, and the most tokens that one of them has.
    std::size_t begun_ = 0;
    std::size_t most_ = 0;
    // When all requests were in decode, and the statistics then.
    std::optional<Clock::time_point> opened_;
    trtllm_executor_stats begin_{};
    // Of the steps from then on, once the first request is about to end.
    std::optional<Steps> steps_;
    std::vector<double> intervals_;
};

}  // namespace

Steps &Steps::operator+=(const Steps &other) {
    count += other.count;
    wall_s += other.wall_s;
    device_s += other.device_s;
    idle_s += other.idle_s;
    return *this;
}

Decode measure_decode(trtllm::Executor &executor, Workload &workload, const Options &options,
                      std::uint32_t concurrency) {
    Decode decode;
    decode.concurrency = concurrency;
    std::vector<double> intervals;
    for (std::uint32_t i = 0; i < options.warmup + options.repeat; ++i) {
        Run run(executor, workload.several(concurrency), options.output);
        run.finish();
        if (i < options.warmup) continue;
        intervals.insert(intervals.end(), run.intervals().begin(), run.intervals().end());
        decode.steps += run.steps();
    }
    decode.step_s = Summary::of(intervals);
    return decode;
}
