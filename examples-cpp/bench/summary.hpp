// A series of measurements as its median and spread.
#pragma once

#include <cstddef>
#include <vector>

struct Summary {
    double min = 0;
    double lower_quartile = 0;
    double median = 0;
    double upper_quartile = 0;
    double max = 0;
    std::size_t count = 0;

    static Summary of(std::vector<double> values);
};
