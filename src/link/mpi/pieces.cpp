#include "link/mpi/pieces.hpp"

#include <algorithm>
#include <array>

#include "link/region.hpp"

namespace orrery {
namespace {

// Some copies of whole loops [loop, 3) of a region, or of plain bytes where loop is 3.
struct Block {
  std::int64_t offset = 0;  // from the region's data, in bytes
  int loop = 3;
  std::int64_t count = 0;  // of the next inner loop, at strides[loop]; of bytes where loop is 3
};

// The bytes [begin, end) of a region as blocks in order. At most two partial ones a loop, so there are few.
class BlockCutter {
 public:
  explicit BlockCutter(const Region& region) : region_(region) {
    bytes_[3] = region.run_bytes;
    for (int loop = 2; loop >= 0; --loop) bytes_[loop] = region.counts[loop] * bytes_[loop + 1];
  }

  std::vector<Block> blocks(std::int64_t begin, std::int64_t end) {
    blocks_.clear();
    add(0, 0, begin, end);
    return blocks_;
  }

 private:
  // begin and end count from the first byte of this loop's present iteration space, which lies at `offset`.
  void add(int loop, std::int64_t offset, std::int64_t begin, std::int64_t end) {
    if (begin == end) return;
    if (loop >= 3) {  // never above 3, but GCC 13 would unroll beyond
      blocks_.push_back({offset + begin, 3, end - begin});
      return;
    }
    const std::int64_t inner = bytes_[loop + 1], stride = region_.strides[loop];
    std::int64_t first = begin / inner;
    const std::int64_t last = end / inner;  // the iteration in which `end` falls
    if (first == last) {
      add(loop + 1, offset + first * stride, begin - first * inner, end - first * inner);
      return;
    }
    if (begin % inner != 0) {
      add(loop + 1, offset + first * stride, begin % inner, inner);
      ++first;
    }
    if (last > first) blocks_.push_back({offset + first * stride, loop, last - first});
    add(loop + 1, offset + last * stride, 0, end - last * inner);
  }

  const Region& region_;
  std::array<std::int64_t, 4> bytes_;  // of one iteration of the loop before; bytes_[0] is all
  std::vector<Block> blocks_;
};

Datatype vector_of(std::int64_t count, int block_length, std::int64_t stride, MPI_Datatype inner) {
  MPI_Datatype type = MPI_DATATYPE_NULL;
  check_mpi(MPI_Type_create_hvector(static_cast<int>(count), block_length, static_cast<MPI_Aint>(stride), inner, &type),
            "MPI_Type_create_hvector");
  return Datatype(type);
}

Datatype type_of(const Region& region, const Block& block) {
  if (block.loop == 3) return vector_of(1, static_cast<int>(block.count), 0, MPI_BYTE);
  const int run = static_cast<int>(region.run_bytes);
  if (block.loop == 2) return vector_of(block.count, run, region.strides[2], MPI_BYTE);
  Datatype type = vector_of(region.counts[2], run, region.strides[2], MPI_BYTE);
  if (block.loop == 0) type = vector_of(region.counts[1], 1, region.strides[1], type.get());
  return vector_of(block.count, 1, region.strides[block.loop], type.get());
}

Datatype type_of(const Region& region, const std::vector<Block>& blocks) {
  std::vector<Datatype> parts;
  std::vector<MPI_Datatype> handles;
  std::vector<MPI_Aint> offsets;
  for (const Block& block : blocks) {
    handles.push_back(parts.emplace_back(type_of(region, block)).get());
    offsets.push_back(static_cast<MPI_Aint>(block.offset));
  }
  const std::vector<int> lengths(blocks.size(), 1);
  MPI_Datatype handle = MPI_DATATYPE_NULL;
  check_mpi(
      MPI_Type_create_struct(static_cast<int>(blocks.size()), lengths.data(), offsets.data(), handles.data(), &handle),
      "MPI_Type_create_struct");
  Datatype type(handle);
  check_mpi(MPI_Type_commit(&handle), "MPI_Type_commit");
  return type;
}

}  // namespace

std::vector<Piece> cut(const Region& asked, std::int64_t piece_bytes) {
  ORRERY_CHECK(piece_bytes > 0 && piece_bytes <= kMpiPieceBytes, "pieces of ", piece_bytes, " bytes");
  const Region region = simplified(asked);
  const std::int64_t total = region.bytes();
  BlockCutter cutter(region);
  std::vector<Piece> pieces;
  std::int64_t begin = 0;
  do {
    const std::int64_t end = std::min(total, begin + piece_bytes);
    Piece& piece = pieces.emplace_back();
    piece.bytes = end - begin;
    const std::vector<Block> blocks = cutter.blocks(begin, end);
    if (blocks.empty() || (blocks.size() == 1 && blocks[0].loop == 3)) {
      piece.address = blocks.empty() ? region.data : region.data + blocks[0].offset;
      piece.count = static_cast<int>(piece.bytes);
    } else {
      piece.address = region.data;
      piece.count = 1;
      piece.type = type_of(region, blocks);
    }
    begin = end;
  } while (begin < total);
  return pieces;
}

}  // namespace orrery
