// Messages as MPI carries them. MPI counts bytes with an int, so a message is cut into pieces of `piece_bytes`, the
// last one smaller: both sides cut at the same bytes whatever the shapes of their regions, because the cuts depend on
// the total alone. A cut may fall inside a run; a piece is then part of a run, whole runs, part of a run.
#pragma once

#include <cstdint>
#include <vector>

#include "link/mpi/handles.hpp"
#include "orrery/transport.hpp"

namespace orrery {

constexpr std::int64_t kMpiPieceBytes = std::int64_t{1} << 30;

struct Piece {
  void* address = nullptr;
  int count = 0;  // of MPI_BYTE, or 1 of `type`
  Datatype type;  // none: contiguous bytes
  std::int64_t bytes = 0;

  MPI_Datatype mpi_type() const { return type.get() == MPI_DATATYPE_NULL ? MPI_BYTE : type.get(); }
};

// At least one: a message of no bytes is one piece of none.
std::vector<Piece> cut(const Region& region, std::int64_t piece_bytes);

}  // namespace orrery
