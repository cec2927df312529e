// The engine that is measured: one that is there, or one built for this run and then removed.
#pragma once

#include <optional>
#include <string>

#include "options.hpp"

class EngineSource {
   public:
    // Builds when the options say so.
    explicit EngineSource(const Options &options);
    // Removes what was built, unless it is to be kept.
    ~EngineSource();
    EngineSource(const EngineSource &) = delete;
    EngineSource &operator=(const EngineSource &) = delete;

    const std::string &path() const { return path_; }
    // Nothing when the engine was there.
    std::optional<double> build_seconds() const { return build_seconds_; }

   private:
    void build(const Options &options);

    std::string path_;
    std::optional<double> build_seconds_;
    bool remove_ = false;
};
