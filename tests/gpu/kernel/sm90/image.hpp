// A matrix as Hopper's units have it in shared memory, by the definition.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace orrery::test::sm90 {

// Panels of 64 columns; in a panel rows of 128 bytes, one after the other; in a row 16-byte chunks, of which the chunk
// c is at c ^ (row % 8). The index of an element of 16 bits.
inline std::size_t place_in_image(int rows, int row, int column) {
  const int panel = column / 64, chunk = column % 64 / 8 ^ row % 8;
  return static_cast<std::size_t>((panel * rows + row) * 64 + chunk * 8 + column % 8);
}

// The same in a panel of floats, which has 32 columns.
inline std::size_t place_in_float_image(int row, int column) {
  const int chunk = column / 4 ^ row % 8;
  return static_cast<std::size_t>(row * 32 + chunk * 4 + column % 4);
}

// element(row, column) of a matrix of so many rows and columns; what fills up the last panel is `outside`.
template <typename Element>
std::vector<std::uint16_t> image_of(int rows, int columns, std::uint16_t outside, const Element& element) {
  const int panels = (columns + 63) / 64;
  std::vector<std::uint16_t> image(static_cast<std::size_t>(panels * rows * 64), outside);
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) image[place_in_image(rows, row, column)] = element(row, column);
  }
  return image;
}

}  // namespace orrery::test::sm90
