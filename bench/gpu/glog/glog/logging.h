// The few macros of glog that DietGPU uses, so that it is built without glog: a failed check says where, and aborts.
#pragma once

#include <cstdlib>
#include <iostream>

namespace narrows_bench {

struct FailedCheck {
  FailedCheck(const char* file, int line, const char* condition) {
    std::cerr << file << ':' << line << ": check failed: " << condition << ' ';
  }
  [[noreturn]] ~FailedCheck() {
    std::cerr << std::endl;
    std::abort();
  }
  std::ostream& stream() { return std::cerr; }
};

// Gives the two arms of the conditional the same type; binds less than <<.
struct Nothing {
  void operator&(std::ostream&) const {}
};

}  // namespace narrows_bench

#define CHECK(condition) \
  (condition) ? (void)0  \
              : narrows_bench::Nothing() & narrows_bench::FailedCheck(__FILE__, __LINE__, #condition).stream()
#define CHECK_EQ(a, b) CHECK((a) == (b))
#define CHECK_NE(a, b) CHECK((a) != (b))
#define CHECK_GE(a, b) CHECK((a) >= (b))
#define CHECK_LE(a, b) CHECK((a) <= (b))
