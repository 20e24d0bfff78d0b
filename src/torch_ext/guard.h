// Every function of the C interface gives 0, or -1 with `nct_error` saying why; -2 if it is another process that has
// ended. No exception leaves.

#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <stdexcept>
#include <string>

inline thread_local std::string last_error;

// Another process has ended.
struct Lost : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class Work>
int guarded(Work work) noexcept {
  try {
    work();
    return 0;
  } catch (const Lost& e) {
    last_error = e.what();
    return -2;
  } catch (const c10::Error& e) {
    last_error = e.what_without_backtrace();
  } catch (const std::exception& e) {
    last_error = e.what();
  } catch (...) {
    last_error = "an exception of no known type";
  }
  return -1;
}
