// What the description of an engine implies: which part of the model a step belongs to, which layers are alike, how
// long a value lives.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "json.hpp"

// A part of the model.
enum class Part { embedding, attention, mlp, norm, head, other };
constexpr Part all_parts[] = {Part::embedding, Part::attention, Part::mlp, Part::norm, Part::head, Part::other};
const char *name_of(Part part);

// Steps one after another that belong to one numbered module, e.g. `layers.0`, or to none.
struct Module {
    std::string name;
    std::size_t first;
    std::size_t end;
    // The steps as far as layers can be alike: operations, shapes, types.
    std::string likeness;
};

// Steps from the one that writes a value to the last one that needs it.
struct Lifetime {
    std::size_t first;
    std::size_t last;
};

class Plan {
   public:
    // Borrows the description.
    explicit Plan(const Json &engine);

    const Json::Items &steps() const { return engine_["steps"].items(); }
    const Json::Items &weights() const { return engine_["weights"].items(); }
    const Json::Items &values() const { return engine_["values"].items(); }
    Part part(std::size_t step) const { return parts_[step]; }

    std::vector<Module> modules() const;
    // By weight: the part of the step that uses it first.
    std::vector<Part> weight_parts() const;
    // By value; nothing for one that no step writes.
    std::vector<std::optional<Lifetime>> lifetimes() const;

   private:
    std::vector<std::string> module_names() const;
    Part part_of(std::size_t step) const;
    Part part_of_linear(std::size_t step) const;
    bool reads_attention(std::size_t step) const;
    bool feeds_attention(std::size_t step, int depth) const;

    const Json &engine_;
    // By value: the step that writes it, and those that read it.
    std::vector<std::optional<std::size_t>> writer_;
    std::vector<std::vector<std::size_t>> readers_;
    std::vector<Part> parts_;
};

// `layers.0` of `layers.0.attention`; empty outside such modules. Of joined names the last that has a module tells.
std::string module_of(const std::string &name);
// The name within its module.
std::string local_name(const std::string &name, const std::string &module);
