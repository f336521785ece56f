"""include/orrery/orrery.h in the terms of ctypes: the structures with their defaults, and the functions that the tests
call. Only the standard library is used."""

import ctypes
import signal
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_double, c_float, c_int, c_int64, c_size_t, c_uint64, c_void_p

OK, BUG, INVALID, VERIFICATION, PEER, RESOURCE, INTERRUPTED = range(7)
FP32, BF16, FP16 = range(3)
FORWARD, BACKWARD = range(2)
CPU, CUDA = range(2)
QUERY, KEY, VALUE, GRAD_OUT = range(1, 5)


class Versioned(Structure):
    """A structure that begins with its size; keywords set other fields than the defaults say."""

    DEFAULTS = {}

    def __init__(self, **fields):
        super().__init__(**{"struct_size": ctypes.sizeof(type(self)), **self.DEFAULTS, **fields})


class Device(Structure):
    _fields_ = [("kind", c_int), ("index", c_int)]


class DeviceInfo(Versioned):
    _fields_ = [("struct_size", c_size_t), ("name", ctypes.c_char * 256), ("compute_capability", c_int),
                ("multiprocessors", c_int), ("memory_bytes", c_int64), ("l2_bytes", c_int64)]


INTERRUPTED_HOOK = ctypes.CFUNCTYPE(c_int, c_void_p)


class ContextOptions(Versioned):
    _fields_ = [("struct_size", c_size_t), ("timeout_seconds", c_double), ("device_link", c_char_p),
                ("interrupted", INTERRUPTED_HOOK), ("interrupted_data", c_void_p)]
    DEFAULTS = {"timeout_seconds": 300.0}


class Message(Structure):
    _fields_ = [("lane", c_int), ("peer", c_int), ("receive", c_int), ("data", c_void_p), ("bytes", c_size_t)]


class Transport(Versioned):
    _fields_ = [("struct_size", c_size_t), ("user", c_void_p), ("rank", c_int), ("world_size", c_int), ("name", c_char_p),
                ("host", c_char_p)] + [(name, c_void_p) for name in ("prepare", "post", "poll", "release", "abort", "close")]
    DEFAULTS = {"world_size": 1}


class Interruptible:
    """Lets Ctrl-C end a call that waits for other ranks. Python notes a signal at once, but runs its handler between two
    of its own instructions, of which a call has none. The hook has some: the handler runs there, on the main thread, and
    the hook of each rank says what it found. Made on the main thread; give `hook` to ContextOptions, keep this object as
    long as the context, and call check() after each call."""

    def __init__(self):
        self.seen = False
        self.hook = INTERRUPTED_HOOK(lambda _: int(self.seen))
        self.before = signal.signal(signal.SIGINT, self.note)

    def note(self, *_):
        self.seen = True

    def check(self):
        if self.seen:
            self.seen = False
            raise KeyboardInterrupt

    def close(self):
        signal.signal(signal.SIGINT, self.before)


class Problem(Versioned):
    _fields_ = [("struct_size", c_size_t), ("batch", c_int64), ("seq_len", c_int64), ("heads", c_int),
                ("kv_heads", c_int), ("head_dim", c_int), ("dtype", c_int), ("mask", c_char_p), ("scale", c_double)]
    DEFAULTS = {"batch": 1, "heads": 1, "kv_heads": 1, "head_dim": 64}


class PlanOptions(Versioned):
    _fields_ = [("struct_size", c_size_t), ("layout", c_char_p), ("strategy", c_char_p), ("backward", c_int),
                ("keep_key_value", c_int), ("keys_per_step", c_int64), ("backward_keys_per_step", c_int64),
                ("link_bytes_per_second", c_double)]
    DEFAULTS = {"keep_key_value": 1}


class Cost(Versioned):
    _fields_ = [("struct_size", c_size_t)] + [(name, c_int64) for name in (
        "steps", "rounds", "bytes_sent", "bytes_received", "pairs", "workspace_bytes", "kept_bytes")] + [
            ("flops", c_double)]


class Port(Versioned):
    _fields_ = [("struct_size", c_size_t), ("name", c_char * 64), ("dtype", c_int), ("forward", c_int), ("backward", c_int)] + [
        (name, c_int64) for name in ("batch", "tokens", "heads", "width")]


class Tensor(Structure):
    _fields_ = [("data", c_void_p), ("dtype", c_int)] + [(name, c_int64) for name in (
        "batch", "tokens", "heads", "width", "batch_stride", "token_stride", "head_stride")]


class Tensors(Versioned):
    _fields_ = [("struct_size", c_size_t)] + [(name, Tensor) for name in (
        "query", "key", "value", "out", "lse", "grad_out", "grad_query", "grad_key", "grad_value")]


class AttentionOptions(Versioned):
    _fields_ = [("struct_size", c_size_t), ("threads", c_int), ("record_steps", c_int), ("device", Device),
                ("use_stream", c_int), ("deterministic", c_int), ("stream", c_void_p), ("sm_margin", c_int64),
                ("portable_kernels", c_int64), ("agree", c_int64), ("bindings", c_int64)]
    DEFAULTS = {"threads": 1, "deterministic": 1, "bindings": 8}


class Timeline(Versioned):
    _fields_ = [("struct_size", c_size_t), ("seconds", c_double), ("compute_seconds", c_double),
                ("exposed_comm_seconds", c_double)]


class VerifyOptions(Versioned):
    _fields_ = [("struct_size", c_size_t), ("full", c_int), ("backward", c_int), ("seed", c_uint64),
                ("counting", c_int64)]
    DEFAULTS = {"backward": 1}


class Verification(Versioned):
    _fields_ = [("struct_size", c_size_t), ("rows", c_int64), ("wrong", c_int64)] + [(name, c_double) for name in (
        "out_rel_l2", "lse_max_abs", "dq_rel_l2", "dk_rel_l2", "dv_rel_l2")] + [
        (name, c_int64) for name in ("keys", "nonfinite", "exceeded")] + [(name, c_double) for name in (
            "out_row_rms", "lse_row_rms", "dq_row_rms", "dk_row_rms", "dv_row_rms",
            "out_rel_l2_limit", "lse_max_abs_limit", "dq_rel_l2_limit", "dk_rel_l2_limit", "dv_rel_l2_limit",
            "out_row_rms_limit", "lse_row_rms_limit", "dq_row_rms_limit", "dk_row_rms_limit", "dv_row_rms_limit")]


STRUCTURES = {"orrery_device": Device, "orrery_device_info": DeviceInfo, "orrery_context_options": ContextOptions,
              "orrery_message": Message, "orrery_transport": Transport,
              "orrery_problem": Problem, "orrery_plan_options": PlanOptions, "orrery_cost": Cost, "orrery_port": Port,
              "orrery_tensor": Tensor, "orrery_tensors": Tensors, "orrery_attention_options": AttentionOptions,
              "orrery_timeline": Timeline, "orrery_verify_options": VerifyOptions,
              "orrery_verification": Verification}

# name -> (result, arguments)
HANDLE, OUT, BUFFER = c_void_p, POINTER(c_void_p), [c_char_p, c_size_t]
FUNCTIONS = {
    "orrery_abi_version": (c_int, []),
    "orrery_version": (c_char_p, []),
    "orrery_machine": (c_int64, BUFFER),
    "orrery_local_create": (c_int, [c_int, POINTER(ContextOptions), OUT, *BUFFER]),
    "orrery_local_destroy": (None, [HANDLE]),
    "orrery_local_context": (c_int, [HANDLE, c_int, OUT, *BUFFER]),
    "orrery_context_destroy": (None, [HANDLE]),
    "orrery_last_error": (c_char_p, [HANDLE]),
    "orrery_context_rank": (c_int, [HANDLE]),
    "orrery_context_barrier": (c_int, [HANDLE]),
    "orrery_plan_create": (c_int, [HANDLE, POINTER(Problem), POINTER(PlanOptions), OUT]),
    "orrery_strategies": (c_int64, [c_char_p, c_size_t]),
    "orrery_strategy_options": (c_int64, [c_char_p, c_size_t]),
    "orrery_context_use_device": (c_int, [HANDLE, Device]),
    "orrery_plan_for": (c_int, [c_int, c_int, POINTER(Problem), POINTER(PlanOptions), OUT, *BUFFER]),
    "orrery_plan_destroy": (None, [HANDLE]),
    "orrery_plan_text": (c_char_p, [HANDLE]),
    "orrery_plan_positions": (c_int64, [HANDLE, c_int, POINTER(c_int64), c_int64]),
    "orrery_plan_check": (c_int64, [HANDLE, c_int64, POINTER(c_int64), *BUFFER]),
    "orrery_dense": (Tensor, [c_void_p, c_int, c_int64, c_int64, c_int64, c_int64]),
    "orrery_rows": (Tensor, [c_void_p, c_int64, c_int64, c_int64]),
    "orrery_generate": (c_int, [HANDLE, HANDLE, c_int, c_uint64, POINTER(Tensor), Device]),
    "orrery_generate_counting": (c_int, [HANDLE, HANDLE, c_int, POINTER(Tensor), Device]),
    "orrery_generated_value": (c_float, [c_int, c_uint64, c_int64, c_int64, c_int64, c_int64]),
    "orrery_attention_create": (c_int, [HANDLE, HANDLE, POINTER(AttentionOptions), OUT]),
    "orrery_attention_destroy": (None, [HANDLE]),
    "orrery_attention_kernels": (c_char_p, [HANDLE, c_int]),
    "orrery_attention_workspace_bytes": (c_size_t, [HANDLE]),
    "orrery_attention_bind": (c_int, [HANDLE, POINTER(Tensors), c_void_p, c_size_t]),
    "orrery_attention_kept_bytes": (c_size_t, [HANDLE]),
    "orrery_plan_port_count": (c_int64, [HANDLE, c_int]),
    "orrery_plan_port": (c_int, [HANDLE, c_int, c_int64, POINTER(Port)]),
    "orrery_attention_bind_named": (c_int, [HANDLE, POINTER(c_char_p), POINTER(Tensor), c_int64, c_void_p, c_size_t, c_void_p,
                                            c_size_t]),
    "orrery_attention_bind_kept": (c_int, [HANDLE, POINTER(Tensors), c_void_p, c_size_t, c_void_p, c_size_t]),
    "orrery_attention_assume_forward": (c_int, [HANDLE]),
    "orrery_attention_forward": (c_int, [HANDLE]),
    "orrery_attention_backward": (c_int, [HANDLE]),
    "orrery_attention_wait": (c_int, [HANDLE]),
    "orrery_attention_timeline": (c_int, [HANDLE, c_int, POINTER(Timeline)]),
    "orrery_attention_verify": (c_int, [HANDLE, POINTER(VerifyOptions), POINTER(Verification)]),
}


def load(path):
    library = ctypes.CDLL(path)
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def make(function, *arguments):
    """A handle from a function whose last arguments are a place for it and a buffer for a message."""
    handle, message = c_void_p(), ctypes.create_string_buffer(300)
    if function(*arguments, byref(handle), message, len(message)) != OK:
        raise RuntimeError(message.value.decode())
    return handle
