// Rows and what is done to them, as two tables. A kind of row has components, which are tensors of so many columns. An
// operation has operands, which are rows of some kind, and the table says what it makes of each. By these tables
// programs are validated, printed, ordered and proved, and backends find the tensors; none of them knows an operation
// by its name. The kernels of an operation are in src/kernels/rowwise.hpp. docs/add-a-step.md adds one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

namespace orrery {

// What a buffer holds, row by row; a row is one (token, head).
enum class BufferKind {
  query,
  key_value,
  state,  // running accumulator, maximum and sum of a softmax
  output,
  grad_output,
  delta,  // rowsum(out * grad_out)
  grad_query,
  grad_key_value,
  scan,  // a matrix and the decay of its rows
  last = scan,
};

// How many columns a component has, by the width of its buffer (of attention: head_dim).
enum class Columns { one, width, square };

constexpr std::size_t kMostComponents = 3, kMostOperands = 4;

struct ComponentRow {
  std::string_view name;  // of a caller's buffer also the name of the tensor that the caller binds
  Columns columns = Columns::width;
  bool fp32 = false;  // whatever the dtype of the buffer
};

struct KindRow {
  BufferKind kind;
  std::string_view name;
  std::array<ComponentRow, kMostComponents> listed;

  constexpr std::span<const ComponentRow> components() const {
    std::size_t count = 0;
    while (count < listed.size() && !listed[count].name.empty()) ++count;
    return std::span(listed).first(count);
  }
};

inline constexpr KindRow kKinds[] = {
    {BufferKind::query, "query", {{{"query"}}}},
    {BufferKind::key_value, "key_value", {{{"key"}, {"value"}}}},
    {BufferKind::state,
     "state",
     {{{"accumulator", Columns::width, true}, {"row_max", Columns::one, true}, {"row_sum", Columns::one, true}}}},
    {BufferKind::output, "output", {{{"out"}, {"lse", Columns::one, true}}}},
    {BufferKind::grad_output, "grad_output", {{{"grad_out"}}}},
    {BufferKind::delta, "delta", {{{"delta", Columns::one, true}}}},
    {BufferKind::grad_query, "grad_query", {{{"grad_query"}}}},
    {BufferKind::grad_key_value, "grad_key_value", {{{"grad_key"}, {"grad_value"}}}},
    {BufferKind::scan, "scan", {{{"matrix", Columns::square, true}, {"decay", Columns::width, true}}}},
};

constexpr const KindRow& row_of(BufferKind kind) {
  return kKinds[static_cast<std::size_t>(kind)];
}
constexpr std::string_view to_string(BufferKind kind) {
  return row_of(kind).name;
}

// A component of a kind, found by its name when the constant is compiled; no other name compiles.
struct ComponentOf {
  BufferKind kind;
  std::size_t index = 0;

  constexpr ComponentOf(BufferKind of, std::string_view name) : kind(of) {
    while (row_of(kind).components()[index].name != name) ++index;
  }
};
inline constexpr ComponentOf kQuery{BufferKind::query, "query"}, kKey{BufferKind::key_value, "key"},
    kValue{BufferKind::key_value, "value"}, kAccumulator{BufferKind::state, "accumulator"},
    kRowMax{BufferKind::state, "row_max"}, kRowSum{BufferKind::state, "row_sum"}, kOut{BufferKind::output, "out"},
    kLse{BufferKind::output, "lse"}, kGradOut{BufferKind::grad_output, "grad_out"}, kDelta{BufferKind::delta, "delta"},
    kGradQuery{BufferKind::grad_query, "grad_query"}, kGradKey{BufferKind::grad_key_value, "grad_key"},
    kGradValue{BufferKind::grad_key_value, "grad_value"}, kMatrix{BufferKind::scan, "matrix"},
    kDecay{BufferKind::scan, "decay"};

enum class AccessMode { read, write, update };  // update reads what it writes

// What an operation does to the rows of an operand, row by row.
enum class Use {
  reads,
  clears,    // writes: the neutral element, an empty state, a zero gradient, the identity of a scan
  copies,    // writes: what the operand that is read holds, in another form or place
  derives,   // writes: a quantity of the operands that are read, which are all of the same rows
  sums,      // updates: adds what the operand that is read holds; the order does not matter
  composes,  // updates: puts what the operand that is read holds before what was there
  keeps,     // updates: the numbers change, and remain those of the same rows; so are operands that are read
};
constexpr AccessMode mode_of(Use use) {
  if (use == Use::reads) return AccessMode::read;
  return use == Use::clears || use == Use::copies || use == Use::derives ? AccessMode::write : AccessMode::update;
}

// A set of kinds.
class Kinds {
 public:
  constexpr Kinds() = default;
  constexpr Kinds(BufferKind kind) : bits_(bit(kind)) {}
  constexpr Kinds(std::initializer_list<BufferKind> kinds) {
    for (BufferKind kind : kinds) bits_ |= bit(kind);
  }
  static constexpr Kinds any() {
    Kinds all;
    all.bits_ = ~std::uint32_t{0};
    return all;
  }
  constexpr bool has(BufferKind kind) const { return (bits_ & bit(kind)) != 0; }
  friend constexpr bool operator==(const Kinds&, const Kinds&) = default;

 private:
  static constexpr std::uint32_t bit(BufferKind kind) { return std::uint32_t{1} << static_cast<unsigned>(kind); }
  std::uint32_t bits_ = 0;
};

struct OperandRow {
  std::string_view name;
  Use use = Use::reads;
  Kinds kinds;            // operands of the same set are of the same one of it
  bool fp32 = false;      // only
  bool optional = false;  // may be left out
};

// Its operands have the same tokens and heads, and what is written overlaps no other operand.
enum class Operation {
  clear,
  merge,      // into = the state of both key sets
  add,        // into += from
  compose,    // into = into o earlier
  copy,       // the same kind, another place or dtype
  normalize,  // output = state, divided by its sum, with lse
  delta,      // delta = rowsum(out * grad_out); of a fused program it clears a gradient of the queries beside
  last = delta,
};

struct OperationRow {
  Operation operation;
  std::string_view name;
  std::string_view text;  // of its steps: {operand} is a slice, and [...] is left out with the optional one in it
  std::array<OperandRow, kMostOperands> listed;

  constexpr std::span<const OperandRow> operands() const {
    std::size_t count = 0;
    while (count < listed.size() && !listed[count].name.empty()) ++count;
    return std::span(listed).first(count);
  }
  constexpr std::size_t index_of(std::string_view operand) const {  // operands().size() when it has none of that name
    std::size_t index = 0;
    while (index < operands().size() && operands()[index].name != operand) ++index;
    return index;
  }
};

inline constexpr Kinds kGradients = {BufferKind::grad_query, BufferKind::grad_key_value};

inline constexpr OperationRow kOperations[] = {
    {Operation::clear, "clear", "{into}", {{{"into", Use::clears, Kinds::any()}}}},
    {Operation::merge,
     "merge",
     "{from} into {into}",
     {{{"into", Use::sums, BufferKind::state}, {"from", Use::reads, BufferKind::state}}}},
    {Operation::add,
     "add",
     "{from} into {into}",
     {{{"into", Use::sums, kGradients, true}, {"from", Use::reads, kGradients, true}}}},
    {Operation::compose,
     "compose",
     "{into} after {earlier}",
     {{{"into", Use::composes, BufferKind::scan}, {"earlier", Use::reads, BufferKind::scan}}}},
    {Operation::copy,
     "copy",
     "{from} to {into}",
     {{{"into", Use::copies, Kinds::any()}, {"from", Use::reads, Kinds::any()}}}},
    {Operation::normalize,
     "normalize",
     "{state} to {into}",
     {{{"into", Use::copies, BufferKind::output}, {"state", Use::reads, BufferKind::state}}}},
    {Operation::delta,
     "delta",
     "{output} . {grad_output} to {into}[, clears {cleared}]",
     {{{"into", Use::derives, BufferKind::delta},
       {"output", Use::reads, BufferKind::output},
       {"grad_output", Use::reads, BufferKind::grad_output},
       {"cleared", Use::clears, BufferKind::grad_query, true, true}}}},
};

constexpr const OperationRow& row_of(Operation operation) {
  return kOperations[static_cast<std::size_t>(operation)];
}
constexpr std::string_view to_string(Operation operation) {
  return row_of(operation).name;
}

// ---------------------------------------------------------------------------------------------------------------------

static_assert(std::size(kKinds) == static_cast<std::size_t>(BufferKind::last) + 1, "every kind has its row");
static_assert(std::size(kOperations) == static_cast<std::size_t>(Operation::last) + 1, "every operation has its row");
static_assert(
    [] {
      for (std::size_t i = 0; i < std::size(kKinds); ++i) {
        if (kKinds[i].kind != static_cast<BufferKind>(i)) return false;
      }
      for (std::size_t i = 0; i < std::size(kOperations); ++i) {
        if (kOperations[i].operation != static_cast<Operation>(i)) return false;
      }
      return true;
    }(),
    "rows stand in the order of their enumerators");
static_assert(
    [] {
      for (const OperationRow& row : kOperations) {
        std::size_t reads = 0, takes_one = 0, takes_some = 0;
        for (const OperandRow& operand : row.operands()) {
          reads += operand.use == Use::reads;
          takes_one += operand.use == Use::copies || operand.use == Use::sums || operand.use == Use::composes;
          takes_some += operand.use == Use::derives;
        }
        if (takes_one > 0 && reads != 1) return false;
        if (takes_some > 0 && reads == 0) return false;
      }
      return true;
    }(),
    "copies, sums and composes are of the one operand that is read, and derives of one or more");

}  // namespace orrery
