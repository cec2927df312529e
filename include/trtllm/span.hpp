/** A borrowed array. Part of trtllm.hpp. */

#ifndef TRTLLM_SPAN_HPP
#define TRTLLM_SPAN_HPP

#include <cstddef>
#include <type_traits>
#include <utility>

namespace trtllm {

/** A borrowed array, as `std::span` of C++20. Converts from anything with `data()` and `size()`. */
template <typename T>
class Span {
   public:
    using value_type = std::remove_cv_t<T>;

    constexpr Span() noexcept = default;
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    template <typename Container,
              typename = std::enable_if_t<std::is_convertible_v<decltype(std::declval<Container &>().data()), T *>>>
    constexpr Span(Container &&container) noexcept : data_(container.data()), size_(container.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }

   private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace trtllm

#endif  // TRTLLM_SPAN_HPP
