#include "orrery/output_file.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "io/output_state.hpp"
#include "io/stream.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

constexpr int kMostLinks = 40;  // as the kernel
constexpr std::int64_t kBufferBytes = 1 << 20;
constexpr std::int64_t kLeastSpace = 4096;  // for a text whose length is not known yet

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

// Where a path leads when its links are followed.
struct Place {
  std::string file;
  int descriptor = -1;  // of this process, when it leads to one that is open
  bool exists = false;
  struct stat status {};
};

// The number of an open descriptor of this process, for the path of its entry in /proc, such as /dev/stdout leads to.
std::optional<int> descriptor_at(const std::string& file) {
  char folder[PATH_MAX];
  if (::realpath(directory_of(file).c_str(), folder) == nullptr) return {};
  if (std::string_view(folder) != concat("/proc/", ::getpid(), "/fd")) return {};
  const std::string_view name = std::string_view(file).substr(file.rfind('/') + 1);
  int number = -1;
  const auto [stop, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc{} || stop != name.data() + name.size() || ::fcntl(number, F_GETFD) < 0) return {};
  return number;
}

Place follow(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) refuse(io::quoted(path), ": is not the name of a file");
  if (path.back() == '/') refuse(io::quoted(path), ": is not the name of a file but of a directory");
  Place place{path};
  for (int links = 0; links < kMostLinks; ++links) {
    if (const auto number = descriptor_at(place.file)) {
      place.descriptor = *number;
      place.exists = ::fstat(*number, &place.status) == 0;
      return place;
    }
    if (::lstat(place.file.c_str(), &place.status) != 0) {
      if (errno != ENOENT) io::fail_file(path, "write", errno);
      return place;
    }
    place.exists = true;
    if (!S_ISLNK(place.status.st_mode)) return place;
    char link[PATH_MAX];
    const ssize_t length = ::readlink(place.file.c_str(), link, sizeof link);
    if (length < 0) io::fail_file(path, "write", errno);
    const std::string_view to(link, static_cast<std::size_t>(length));
    place.file = to.starts_with('/') ? std::string(to) : concat(directory_of(place.file), "/", to);
    place.exists = false;
  }
  io::fail_file(path, "write", ELOOP);
}

FileIdentity identity_of(const struct stat& status, std::string name = {}) {
  return {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino), std::move(name)};
}

// Refuses a folder that is none, and a file that may not be replaced.
void check_target(const std::string& path, const Place& place) {
  const std::string folder = directory_of(place.file);
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) {
    refuse(io::quoted(path), ": cannot write: there is no directory ", io::quoted(folder));
  }
  if (!place.exists) return;
  if (::access(place.file.c_str(), W_OK) != 0) io::fail_file(path, "write", errno);
  const uid_t user = ::geteuid();
  const bool kept =
      (status.st_mode & S_ISVTX) != 0 && user != 0 && user != status.st_uid && user != place.status.st_uid;
  if (kept) refuse(io::quoted(path), ": belongs to another user, in a folder where only the owner may replace it");
}

void check_space(const std::string& path, const std::string& folder, std::int64_t bytes) {
  struct statvfs disk {};
  if (::statvfs(folder.c_str(), &disk) == 0 && disk.f_blocks > 0) {
    const auto free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
    if (free < static_cast<double>(std::max(bytes, kLeastSpace))) {
      fail(ErrorCode::resource, io::quoted(path),
           ": cannot write: No space left on device: ", std::max(bytes, kLeastSpace), " bytes are needed in ",
           io::quoted(folder), ", ", static_cast<std::int64_t>(free), " are free");
    }
  }
  rlimit most{};
  if (::getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur != RLIM_INFINITY &&
      most.rlim_cur < static_cast<rlim_t>(bytes)) {
    fail(ErrorCode::resource, io::quoted(path), ": cannot write: File too large: it has ", bytes,
         " bytes, and this process may write ", most.rlim_cur, " into one (ulimit -f)");
  }
}

io::FileDescriptor open_stream(const std::string& path, const Place& place, double timeout_seconds) {
  if (place.descriptor >= 0) {
    if ((::fcntl(place.descriptor, F_GETFL) & O_ACCMODE) == O_RDONLY) {
      refuse(io::quoted(path), ": cannot write: the descriptor ", place.descriptor, " is open for reading only");
    }
    io::FileDescriptor stream(::fcntl(place.descriptor, F_DUPFD_CLOEXEC, 0));
    if (!stream.is_open()) io::fail_file(path, "write", errno);
    return stream;
  }
  if (S_ISFIFO(place.status.st_mode)) return io::open_fifo(place.file, path, timeout_seconds);
  if (!S_ISCHR(place.status.st_mode)) {
    refuse(io::quoted(path), ": is not a regular file, a FIFO or a character device");
  }
  io::FileDescriptor stream(::open(place.file.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!stream.is_open()) io::fail_file(path, "write", errno);
  return stream;
}

void set_size(const io::FileDescriptor& file, const std::string& path, std::int64_t bytes) {
  if (bytes == 0) return;
#ifdef __linux__
  // Not posix_fallocate: where a file system cannot reserve space, that writes a byte into every block instead.
  int result;
  do {
    result = ::fallocate(file.get(), 0, 0, bytes);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return;
  if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) io::fail_file(path, "reserve space for", errno);
#endif
  if (::ftruncate(file.get(), bytes) != 0) io::fail_file(path, "set the size of", errno);
}

}  // namespace

FileIdentity identify_file(const std::string& path) {
  const Place place = follow(path);
  if (place.exists) return identity_of(place.status);
  struct stat folder {};
  if (::stat(directory_of(place.file).c_str(), &folder) != 0) {
    refuse(io::quoted(path), ": there is no directory ", io::quoted(directory_of(place.file)));
  }
  return identity_of(folder, place.file.substr(place.file.rfind('/') + 1));
}

io::FileDescriptor OutputFile::State::begin(std::int64_t bytes) {
  const std::string folder = stream.is_open() ? std::filesystem::temp_directory_path().string() : directory_of(target);
  io::FileDescriptor file;
  {
    const std::lock_guard lock(mutex);
    if (abandoned) fail(ErrorCode::resource, io::quoted(path), ": was abandoned");
    std::random_device random;
    do {
      // Short, whatever the target; two jobs do not meet; and it tells whose it is, should that be killed.
      char name[48];
      std::snprintf(name, sizeof name, "/.orrery-%d-%08x.part", ::getpid(), random());
      temporary = folder + name;
      file = io::FileDescriptor(::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    } while (!file.is_open() && errno == EEXIST);
    if (!file.is_open()) {
      const int error = errno;
      temporary.clear();
      io::fail_file(path, "write", error);
    }
  }
  set_size(file, path, bytes);
  return file;
}

void OutputFile::State::commit(const io::FileDescriptor& file) {
  if (stream.is_open()) {
    std::vector<char> buffer(kBufferBytes);
    const std::int64_t bytes = io::size_of_file(file, path);
    for (std::int64_t done = 0; done < bytes; done += kBufferBytes) {
      const std::int64_t now = std::min(kBufferBytes, bytes - done);
      io::read_at(file, path, buffer.data(), now, done);
      io::write_stream(stream, path, {buffer.data(), static_cast<std::size_t>(now)}, timeout_seconds);
    }
    return discard();
  }
  io::sync(file, path);
  struct stat status {};
  if (::lstat(target.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    refuse(io::quoted(path), ": has become something other than a regular file, so it is not replaced");
  }
  {
    const std::lock_guard lock(mutex);
    if (abandoned) fail(ErrorCode::resource, io::quoted(path), ": was abandoned");
    if (::rename(temporary.c_str(), target.c_str()) != 0) io::fail_file(path, "write", errno);
    temporary.clear();
  }
  // So that the name survives a crash too. Not every file system can flush a directory; the data are safe without it.
  const io::FileDescriptor directory(::open(directory_of(target).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.is_open()) ::fsync(directory.get());
}

void OutputFile::State::discard() noexcept {
  const std::lock_guard lock(mutex);
  if (!temporary.empty()) ::unlink(temporary.c_str());
  temporary.clear();
}

OutputFile::OutputFile(std::string path, std::int64_t bytes, double timeout_seconds)
    : state_(std::make_unique<State>()) {
  const Place place = follow(path);
  if (place.exists && S_ISDIR(place.status.st_mode)) refuse(io::quoted(path), ": is a directory, not a file");
  const bool regular = place.descriptor < 0 && (!place.exists || S_ISREG(place.status.st_mode));
  if (regular) {
    check_target(path, place);
    check_space(path, directory_of(place.file), bytes);
    state_->path = path;
    state_->target = place.file;
    // The surest way to learn whether a file can be made there.
    state_->begin(0);
    state_->discard();
  } else {
    if (bytes > 0) check_space(path, std::filesystem::temp_directory_path().string(), bytes);
    state_->stream = open_stream(path, place, timeout_seconds);
  }
  state_->path = std::move(path);
  state_->timeout_seconds = timeout_seconds;
}

OutputFile::~OutputFile() {
  if (state_) state_->discard();
}
OutputFile::OutputFile(OutputFile&&) noexcept = default;
OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

const std::string& OutputFile::path() const {
  return state_->path;
}
bool OutputFile::is_stream() const {
  return state_->stream.is_open();
}

void OutputFile::write(std::string_view content) {
  if (is_stream()) return io::write_stream(state_->stream, path(), content, state_->timeout_seconds);
  try {
    const io::FileDescriptor file = state_->begin(static_cast<std::int64_t>(content.size()));
    io::write_at(file, path(), content.data(), static_cast<std::int64_t>(content.size()), 0);
    state_->commit(file);
  } catch (...) {
    state_->discard();
    throw;
  }
}

void OutputFile::abandon() noexcept {
  {
    const std::lock_guard lock(state_->mutex);
    state_->abandoned = true;
  }
  state_->discard();
}

}  // namespace orrery
