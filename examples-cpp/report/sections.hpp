// The sections of the page, one file each. They write what the description of the engine has, and leave out the rest.
#pragma once

#include <string>

#include "html.hpp"
#include "json.hpp"
#include "plan.hpp"

// What the engine is: model, precision, target, versions.
void write_facts(Html &html, const Json &engine, const Plan &plan);
// Where the bytes of the file lie, and which part of the model the weights belong to.
void write_memory(Html &html, const Json &engine, const Plan &plan);
// What the passes of the compiler made of the graph.
void write_fusions(Html &html, const Json &engine);
// The steps in order; layers like the one before are folded.
void write_steps(Html &html, const Plan &plan);
// Which values share which slot of the workspace, and the KV cache.
void write_workspace(Html &html, const Json &engine, const Plan &plan);
// How linear layers are computed on a GPU, with the times that were measured.
void write_tactics(Html &html, const Json &engine);
// The networks before and after the passes, as the library prints them.
void write_network(Html &html, const std::string &before, const std::string &after);
