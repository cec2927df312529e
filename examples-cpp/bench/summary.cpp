#include "summary.hpp"

#include <algorithm>
#include <cmath>

namespace {

// Between two values the quantile lies on the straight line that joins them.
double quantile(const std::vector<double> &sorted, double fraction) {
    const double position = fraction * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(std::floor(position));
    const auto above = static_cast<std::size_t>(std::ceil(position));
    return sorted[below] + (position - std::floor(position)) * (sorted[above] - sorted[below]);
}

}  // namespace

Summary Summary::of(std::vector<double> values) {
    if (values.empty()) return {};
    std::sort(values.begin(), values.end());
    Summary summary;
    summary.min = values.front();
    summary.lower_quartile = quantile(values, 0.25);
    summary.median = quantile(values, 0.5);
    summary.upper_quartile = quantile(values, 0.75);
    summary.max = values.back();
    summary.count = values.size();
    return summary;
}
