// Whether tensors share memory, asked of the elements and not of the extents: rows of one tensor may lie between those
// of another, as queries, keys and values do in a packed projection, without a byte in common.
//
// Two elements are one when a sum of strides, each times a difference of indices, hits a gap. Taken from the widest
// stride on, what the narrower ones can still add leaves few differences to try, so the answer is exact and costs a few
// steps for layouts that nest. A layout so tangled that the search grows beyond its limit counts as apart.
#pragma once

#include "orrery/tensor.hpp"

namespace orrery {

// Whether two tensors have a byte in common. One without elements has none.
bool overlap(const TensorView& a, const TensorView& b);
// Whether two elements of one tensor are the same memory.
bool overlaps_itself(const TensorView& tensor);

}  // namespace orrery
