#include "launch/inputs.hpp"

#include <array>
#include <limits>

#include "launch/text.hpp"
#include "orrery/file.hpp"

namespace orrery::launch {
namespace {

// The extents of a tensor of a file.
struct Extents {
  std::int64_t batch, tokens, heads, width;
};

Extents extents_of(const std::string& name, const TensorInfo& info, AxisOrder order) {
  const auto& shape = info.shape;
  const bool heads_first = order == AxisOrder::heads_tokens;
  if (shape.size() != 3 && shape.size() != 4) {
    const char* axes = heads_first ? "heads, tokens" : "tokens, heads";
    refuse(name, " has ", shape.size(), " dimensions; [", axes, ", head_dim] or [batch, ", axes,
           ", head_dim] is needed");
  }
  const std::size_t first = shape.size() - 3;
  const std::size_t tokens = first + heads_first, heads = first + !heads_first;
  for (std::size_t i = first; i < shape.size(); ++i) {
    if (i != tokens && shape[i] > std::numeric_limits<int>::max())
      refuse(name, ": dimension ", i, " is ", shape[i], ", which is too large");
  }
  return {first == 1 ? shape[0] : 1, shape[tokens], shape[heads], shape[first + 2]};
}

// What to say of extents that look like those of the other order; nothing when they do not.
std::string transposed_note(const std::string& name, const Extents& e) {
  if (e.heads <= e.tokens) return {};
  return concat(name, " is read as ", e.heads, " heads over ", counted(e.tokens, "token"),
                "; if it is [batch, heads, tokens, head_dim], give --input-layout bhsd");
}

template <typename Option, typename Value>
void agree_with(const Option& option, const char* name, const Value& value, const std::string& source) {
  if (option && static_cast<std::int64_t>(*option) != static_cast<std::int64_t>(value)) {
    refuse("--", name, " ", static_cast<std::int64_t>(*option), " contradicts ", source, ", which has ",
           static_cast<std::int64_t>(value));
  }
}

void same(const char* what, std::int64_t a, const std::string& name_a, std::int64_t b, const std::string& name_b) {
  if (a != b) refuse(what, " differ: ", a, " in ", name_a, ", ", b, " in ", name_b);
}

void set_mask(AttentionProblem& problem, const Options& options) {
  problem.mask = Mask::parse(options.mask.value_or("causal"), problem.seq_len);
  problem.scale = options.scale;
  problem.validate();
}

// The first that this rank meets.
void refuse_nonfinite(const std::string& name, const TensorView& rows, std::span<const Span> positions) {
  const std::optional<NonfiniteElement> met = find_nonfinite(rows);
  if (!met) return;
  const Span token = slice(positions, {met->token, met->token + 1}).front();
  refuse(name, " holds ", met->value, " at ", rows.batch > 1 ? concat("batch ", met->batch, ", ") : "", "token ",
         token.begin, ", head ", met->head, ", column ", met->column,
         ": attention over it is not finite; --allow-nonfinite takes it all the same");
}

}  // namespace

AttentionProblem generated_problem(const Options& options, const Sizes& defaults) {
  AttentionProblem problem;
  problem.batch = options.batch.value_or(defaults.batch);
  problem.seq_len = options.seq_len.value_or(defaults.seq_len);
  problem.heads = options.heads.value_or(defaults.heads);
  problem.kv_heads = options.kv_heads.value_or(defaults.kv_heads > 0 ? defaults.kv_heads : problem.heads);
  problem.head_dim = options.head_dim.value_or(defaults.head_dim);
  problem.dtype = options.dtype.value_or(Dtype::fp32);
  set_mask(problem, options);
  return problem;
}

Inputs::Source Inputs::open(const std::string& given, std::string_view default_name) {
  std::string_view path = longest_file(given, ':');
  if (path.empty()) {
    const std::size_t colon = given.find(':');
    if (colon != std::string::npos) {
      refuse("'", given, "' is not FILE or FILE:TENSOR: no file is named '", given,
             "', nor is one named as what stands before a colon of it, '", given.substr(0, colon), "' at the shortest");
    }
    path = given;
  }
  const bool named = path.size() < given.size();
  if (named && path.size() + 1 == given.size())
    refuse("'", given, "' is not FILE or FILE:TENSOR: the tensor is missing");
  SafetensorsFile file{std::string(path)};
  TensorInfo info = file.info(named ? std::string_view(given).substr(path.size() + 1) : default_name);
  return {std::move(file), std::move(info)};
}

Inputs::Inputs(const Options& options)
    : seed_(options.seed),
      recipe_(options.inputs),
      allow_nonfinite_(options.allow_nonfinite),
      order_(options.input_layout.value_or(AxisOrder::tokens_heads)) {
  if (options.query.empty()) {
    problem_ = generated_problem(options);
    return;
  }
  query_.emplace(open(options.query, "q"));
  key_.emplace(open(options.key, "k"));
  value_.emplace(open(options.value, "v"));
  if (!options.grad_out.empty()) grad_out_.emplace(open(options.grad_out, "do"));

  const std::string name = query_->text();
  const Extents q = extents_of(name, query_->info, order_);
  const Extents k = extents_of(key_->text(), key_->info, order_);
  if (!options.input_layout) note_ = transposed_note(name, q);
  const std::array others = {&key_, &value_, &grad_out_};
  for (const std::optional<Source>* other : others) {
    if (!*other) continue;
    const Source& source = **other;
    const Extents e = extents_of(source.text(), source.info, order_);
    same("dimensions", static_cast<std::int64_t>(query_->info.shape.size()), name,
         static_cast<std::int64_t>(source.info.shape.size()), source.text());
    same("batches", q.batch, name, e.batch, source.text());
    // Where heads stand first and keys have fewer, the numbers of tokens seem to differ.
    const bool transposed = q.tokens != e.tokens && q.heads == e.heads && !options.input_layout;
    same("tokens", q.tokens, name, e.tokens,
         source.text() +
             (transposed ? "; if these are [batch, heads, tokens, head_dim], give --input-layout bhsd" : ""));
    same("head_dims", q.width, name, e.width, source.text());
    if (other == &value_) same("heads", k.heads, key_->text(), e.heads, source.text());
    if (other == &grad_out_) same("heads", q.heads, name, e.heads, source.text());
    if (source.info.dtype != query_->info.dtype) {
      refuse("dtypes differ: ", to_string(query_->info.dtype), " in ", name, ", ", to_string(source.info.dtype), " in ",
             source.text());
    }
  }
  agree_with(options.seq_len, "seq-len", q.tokens, name);
  agree_with(options.batch, "batch", q.batch, name);
  agree_with(options.heads, "heads", q.heads, name);
  agree_with(options.kv_heads, "kv-heads", k.heads, key_->text());
  agree_with(options.head_dim, "head-dim", q.width, name);
  if (options.dtype && *options.dtype != query_->info.dtype) {
    refuse("--dtype ", to_string(*options.dtype), " contradicts ", name, ", which is ", to_string(query_->info.dtype));
  }
  batched_ = query_->info.shape.size() == 4;
  problem_.batch = q.batch;
  problem_.seq_len = q.tokens;
  problem_.heads = static_cast<int>(q.heads);
  problem_.kv_heads = static_cast<int>(k.heads);
  problem_.head_dim = static_cast<int>(q.width);
  problem_.dtype = query_->info.dtype;
  set_mask(problem_, options);
}

std::string Inputs::describe() const {
  if (!from_files()) return recipe_ == Recipe::normal ? concat("generated, seed ", seed_) : "generated, counting";
  return concat(query_->text(), ", ", key_->text(), ", ", value_->text(), grad_out_ ? ", " + grad_out_->text() : "");
}

void Inputs::read(const std::optional<Source>& source, Generated generated, const TensorView& into,
                  std::span<const Span> positions, Device device) const {
  if (!source) return generate(into, generated, seed_, positions, device, recipe_);
  const auto read_rows = [&](const TensorView& rows) {
    source->file.read(source->info, positions, rows, order_);
    if (!allow_nonfinite_) refuse_nonfinite(source->text(), rows, positions);
  };
  if (device.kind == DeviceKind::cpu) return read_rows(into);
  const std::size_t bytes = static_cast<std::size_t>(into.elements()) * size_of(into.dtype);
  const DeviceMemory staging({}, bytes, "rows on their way to the device");
  TensorView rows = into;
  rows.data = staging.data();
  read_rows(rows);
  copy_bytes(into.data, rows.data, bytes);
}

void Inputs::fill(const AttentionTensors& tensors, std::span<const Span> positions, Device device) const {
  read(query_, Generated::query, tensors.query, positions, device);
  read(key_, Generated::key, tensors.key, positions, device);
  read(value_, Generated::value, tensors.value, positions, device);
  if (tensors.grad_out.data != nullptr) read(grad_out_, Generated::grad_out, tensors.grad_out, positions, device);
}

}  // namespace orrery::launch
