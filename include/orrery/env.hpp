// Every ORRERY_ variable, in one place. They set what a site or a user sets once; options on the command line win.
#pragma once

#include <optional>

namespace orrery {

struct Env {
  double timeout_seconds = 300;      // ORRERY_TIMEOUT_SECONDS: the longest a rank waits for another; above 0
  int threads = 1;                   // ORRERY_THREADS: threads a rank computes with; 1 to 1024
  int sm_margin = 0;                 // ORRERY_SM_MARGIN: multiprocessors that attention kernels leave free; 0 or more
  bool portable_kernels = false;     // ORRERY_KERNELS: portable, in place of best
  std::optional<bool> agree_always;  // ORRERY_AGREE: always, or first; without, what the build does
  bool launcher = true;  // ORRERY_LAUNCHER: none, for a process that runs alone whatever started it, or auto
  bool check = false;    // ORRERY_CHECK: 1 proves every plan before it runs, as debug builds do

  // Reads the process's environment. A value that is not of its kind is refused (ErrorCode::invalid), naming the
  // variable.
  static Env read();
};

}  // namespace orrery
