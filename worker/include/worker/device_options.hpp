#pragma once
// What of a machine a worker may use. Each worker's own: it changes how fast a shard is trained, and
// the number of threads which of several equally good roundings comes out.

#include <cstdint>
#include <string>

#include "cluster/option.hpp"

namespace yumoe {

struct DeviceOptions {
  std::string device = "cpu";
  std::int64_t threads = 1;
  double speed_share = 1.0;

  template <typename Visitor>
  void visit(Visitor& option) {
    option(
        "device", device,
        {.help = "what to compute on: auto, cpu, cuda or cuda:N; auto takes CUDA if it is there"});
    option("threads", threads, {.min = 1, .max = 1'024, .help = "threads of the tensor library"});
    option("speed_share", speed_share,
           {.unit = "share",
            .min = 0.01,
            .max = 1,
            .help = "sleeps after each inner step so that this share of the speed is left"});
  }
};

}  // namespace yumoe
