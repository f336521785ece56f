// The world of the processes of an MPI communicator: that of the transport, and how MPI is closed.
#include "link/mpi/mpi_world.hpp"

#include <system_error>
#include <utility>

#include "link/mpi/mpi_transport.hpp"
#include "link/mpi/pieces.hpp"
#include "link/transport/transport_world.hpp"

namespace orrery {
namespace {

class MpiWorld final : public TransportWorld {
 public:
  MpiWorld(std::unique_ptr<MpiTransport> transport, const WorldOptions& options)
      : TransportWorld(std::move(transport), options),
        transport_(static_cast<MpiTransport&>(TransportWorld::transport())) {}
  ~MpiWorld() override { close(); }

 private:
  void close() noexcept;

  MpiTransport& transport_;
};

// MPI_Finalize waits for all ranks. A world that closes in good order waits for them itself first, by name and with a
// deadline; one that closes because of an error does not call MPI any more, and the launcher ends the job.
void MpiWorld::close() noexcept {
  close_stream_link();  // while MPI is still there
  if (!transport_.open() || !in_good_order()) return transport_.forget();
  if (!transport_.finalises()) return;
  try {
    barrier();
    transport_.finalise(timeout_seconds());
  } catch (const std::system_error& error) {
    abort(ErrorCode::resource, concat("cannot start the thread that guards MPI_Finalize: ", error.what()));
  } catch (const std::exception& error) {
    abort(ErrorCode::peer, concat("while closing the world: ", error.what()));
  }
}

}  // namespace

std::unique_ptr<World> open_mpi_world(const void* communicator, const WorldOptions& options, std::int64_t piece_bytes) {
  check_options(options, "mpi");
  auto transport =
      std::make_unique<MpiTransport>(communicator, options.timeout_seconds, options.interrupted, piece_bytes);
  return std::make_unique<MpiWorld>(std::move(transport), options);
}

std::unique_ptr<World> open_mpi_world(const void* communicator, const WorldOptions& options) {
  return open_mpi_world(communicator, options, kMpiPieceBytes);
}

std::unique_ptr<World> open_mpi_world(const WorldOptions& options) {
  return open_mpi_world(nullptr, options);
}

}  // namespace orrery
