#include "link/mpi/handles.hpp"

namespace orrery {
namespace {

ErrorCode code_of(int error_class) {
  switch (error_class) {
    case MPI_ERR_BUFFER:
    case MPI_ERR_COUNT:
    case MPI_ERR_TYPE:
    case MPI_ERR_TAG:
    case MPI_ERR_COMM:
    case MPI_ERR_RANK:
    case MPI_ERR_REQUEST:
    case MPI_ERR_ARG:
    case MPI_ERR_TRUNCATE:
      return ErrorCode::bug;
    case MPI_ERR_NO_MEM:
      return ErrorCode::resource;
    default:
      return ErrorCode::peer;
  }
}

}  // namespace

Error mpi_error(int code, const std::string& what) {
  int error_class = MPI_ERR_OTHER, length = 0;
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  MPI_Error_class(code, &error_class);
  MPI_Error_string(code, text, &length);
  return Error(code_of(error_class), concat(what, ": ", text));
}

}  // namespace orrery
