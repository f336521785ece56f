// Included before Highway. The kernels keep vectors in arrays, so a vector's length must be known when they are
// compiled; instruction sets whose length is not fall back to a fixed one (on Arm, from SVE to NEON).
#pragma once

#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
