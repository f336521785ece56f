// Unpacks the test tensors: reads the packed stream from standard input and writes kjv_q, kjv_k and kjv_v.safetensors
// into the folder given, bit for bit as the model made them.
//
// The tensors are packed without loss, in less than half the space that a general compressor needs, because they are
// three linear images of one hidden state: with the rotary embedding of q and k undone, the 640 numbers of a token (6
// query, 2 key and 2 value heads of 64) are close to a combination of `components` fixed vectors. The stream holds,
// numbers little-endian:
//   the three safetensors headers, for q, k and v
//   components (16 bits), then a shift for each of them (8 bits)
//   basis         a run of 640 numbers for each component, in units of 2^-shift
//   coefficients  a run of 16384 numbers for each component, one a token, in units of 1/64
//   residuals     actual minus predicted, counted in bf16 numbers, a byte each; 255 stands for one of the wide ones
//   wide          the residuals of 255 and more, 16 bits each
// A run stores the high bytes of its numbers first, then the low bytes. All are signed and folded to 0, -1, 1, -2, ...
// The residuals are sorted by tensor, then by the exponent of the prediction, then by column, then by token, so that
// residuals of like size stand together. The prediction is exact integer arithmetic up to the rotation, which is done
// in double and rounded to fp32 and to bf16; the checksums beside the packed file tell whether this machine rounded as
// the packer did.

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

namespace {

constexpr int kTokens = 16384, kColumns = 640, kHeadDim = 64, kHalf = kHeadDim / 2, kRotated = 8 * kHeadDim;
constexpr int kBasisShift = 16;                              // of the finest component
constexpr double kUnit = 1.0 / (64.0 * (1 << kBasisShift));  // of a coefficient times a basis number
constexpr std::array kTensors = {"q", "k", "v"};
constexpr std::array kFirstColumn = {0, 384, 512, kColumns};  // where each tensor begins, and the end

struct Stream {
  std::vector<unsigned char> bytes;
  std::size_t at = 0;

  const unsigned char* take(std::size_t count) {
    if (count > bytes.size() - at) {
      std::cerr << "unpack: the packed stream ends early\n";
      std::exit(1);
    }
    at += count;
    return bytes.data() + at - count;
  }
};

int unfold(int folded) {
  return folded % 2 == 0 ? folded / 2 : -(folded + 1) / 2;
}

// `into[i * step]` receives the i-th number of a run.
void take_run(Stream& stream, int count, int step, std::int16_t* into) {
  const unsigned char* high = stream.take(2 * static_cast<std::size_t>(count));
  const unsigned char* low = high + count;
  for (int i = 0; i < count; ++i) into[i * step] = static_cast<std::int16_t>(unfold(high[i] << 8 | low[i]));
}

std::uint16_t bf16(double value) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// bf16 numbers in ascending order are 0, 1, 2, ..., minus zero just before zero; and back.
int to_rank(int bits) {
  return bits & 0x8000 ? 0x7fff - (bits & 0x7fff) : bits | 0x8000;
}
int from_rank(int rank) {
  return rank & 0x8000 ? rank & 0x7fff : 0x8000 | (0x7fff - rank);
}

// The predicted bf16 numbers, [column][token].
std::vector<std::uint16_t> predict(Stream& stream) {
  const unsigned char* size = stream.take(2);
  const int components = size[0] | size[1] << 8;
  const unsigned char* shifts = stream.take(static_cast<std::size_t>(components));
  std::vector<double> basis;
  for (int i = 0; i < components; ++i) {
    std::array<std::int16_t, kColumns> run;
    take_run(stream, kColumns, 1, run.data());
    for (const int number : run) basis.push_back(std::ldexp(number, kBasisShift - shifts[i]));
  }
  std::vector<std::int16_t> coefficients(static_cast<std::size_t>(kTokens) * components);  // [token][component]
  for (int i = 0; i < components; ++i) take_run(stream, kTokens, components, coefficients.data() + i);

  // Frequencies theta^(-2j/64) with theta 1e6, by square roots and products, which round alike on every machine.
  double ratio = 1e-6;
  for (int i = 0; i < 5; ++i) ratio = std::sqrt(ratio);
  std::array<double, kHalf> frequency = {1.0};
  for (int j = 1; j < kHalf; ++j) frequency[j] = frequency[j - 1] * ratio;

  std::vector<std::uint16_t> predicted(static_cast<std::size_t>(kColumns) * kTokens);
  for (int token = 0; token < kTokens; ++token) {
    std::array<double, kColumns> sum{};
    for (int i = 0; i < components; ++i) {
      const double coefficient = coefficients[static_cast<std::size_t>(token) * components + i];
      if (coefficient == 0) continue;
      const double* row = basis.data() + static_cast<std::size_t>(i) * kColumns;
      for (int column = 0; column < kColumns; ++column) sum[column] += coefficient * row[column];
    }
    for (int j = 0; j < kHalf; ++j) {
      const double cosine = std::cos(token * frequency[j]), sine = std::sin(token * frequency[j]);
      for (int column = j; column < kRotated; column += kHeadDim) {
        const double a = sum[column], b = sum[column + kHalf];
        sum[column] = a * cosine - b * sine;
        sum[column + kHalf] = b * cosine + a * sine;
      }
    }
    for (int column = 0; column < kColumns; ++column) {
      predicted[static_cast<std::size_t>(column) * kTokens + token] = bf16(sum[column] * kUnit);
    }
  }
  return predicted;
}

// Adds the residuals to the predicted numbers, which become the actual ones.
void correct(Stream& stream, std::vector<std::uint16_t>& numbers) {
  const unsigned char* narrow = stream.take(numbers.size());
  std::vector<std::uint16_t> residuals(numbers.size());
  for (std::size_t i = 0; i < residuals.size(); ++i) {
    residuals[i] = narrow[i];
    if (narrow[i] == 255) {
      const unsigned char* wide = stream.take(2);
      residuals[i] = static_cast<std::uint16_t>(wide[0] | wide[1] << 8);
    }
  }
  const auto exponent = [&](std::size_t i) { return numbers[i] >> 7 & 255; };
  for (std::size_t t = 0; t < kTensors.size(); ++t) {
    const std::size_t begin = static_cast<std::size_t>(kFirstColumn[t]) * kTokens;
    const std::size_t end = static_cast<std::size_t>(kFirstColumn[t + 1]) * kTokens;
    std::array<std::size_t, 257> next{};  // the next residual of each exponent
    for (std::size_t i = begin; i < end; ++i) ++next[exponent(i) + 1];
    next[0] = begin;
    for (int e = 0; e < 256; ++e) next[e + 1] += next[e];
    for (std::size_t i = begin; i < end; ++i) {
      const int residual = unfold(residuals[next[exponent(i)]++]);
      numbers[i] = static_cast<std::uint16_t>(from_rank((to_rank(numbers[i]) + residual) & 0xffff));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: unpack FOLDER < packed stream\n";
    return 2;
  }
  Stream stream{{std::istreambuf_iterator<char>(std::cin), {}}};
  std::array<std::string, kTensors.size()> contents;  // the header, then the data
  for (std::string& content : contents) {
    std::size_t length = 0;
    const unsigned char* bytes = stream.take(8);
    for (int i = 7; i >= 0; --i) length = length << 8 | bytes[i];
    content.assign(bytes, bytes + 8);
    const unsigned char* json = stream.take(length);
    content.append(json, json + length);
  }
  std::vector<std::uint16_t> numbers = predict(stream);
  correct(stream, numbers);
  for (std::size_t t = 0; t < kTensors.size(); ++t) {
    for (int token = 0; token < kTokens; ++token) {
      for (int column = kFirstColumn[t]; column < kFirstColumn[t + 1]; ++column) {
        const std::uint16_t number = numbers[static_cast<std::size_t>(column) * kTokens + token];
        contents[t] += static_cast<char>(number & 255);
        contents[t] += static_cast<char>(number >> 8);
      }
    }
    const std::string path = std::string(argv[1]) + "/kjv_" + kTensors[t] + ".safetensors";
    std::ofstream file(path, std::ios::binary);
    file.write(contents[t].data(), static_cast<std::streamsize>(contents[t].size()));
    if (!file.flush()) {
      std::cerr << "unpack: cannot write " << path << "\n";
      return 1;
    }
  }
}
