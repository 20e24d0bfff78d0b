// What c10d's headers mention of Gloo. libtorch holds Gloo itself, but not its headers; nothing here is called by us,
// and no layout but that of the abstract store matters.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds);
};

namespace transport {
class Device;
class UnboundBuffer;
} // namespace transport

namespace rendezvous {

struct StoreRoot {
  virtual ~StoreRoot() = default;
};

class Store : public StoreRoot {
 public:
  virtual void set(const std::string&, const std::vector<char>&) = 0;
  virtual std::vector<char> get(const std::string&) = 0;
  virtual void wait(const std::vector<std::string>&) = 0;
  virtual void wait(const std::vector<std::string>&, const std::chrono::milliseconds&) = 0;
};

} // namespace rendezvous
} // namespace gloo
