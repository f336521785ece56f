#include "orrery/error.hpp"

#include <exception>
#include <new>
#include <system_error>

namespace orrery {

Error current_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::resource, "out of memory");
  } catch (const std::system_error& error) {  // threads run out as memory does
    const bool scarce = error.code() == std::errc::resource_unavailable_try_again;
    return Error(scarce ? ErrorCode::resource : ErrorCode::bug, error.what());
  } catch (const std::exception& error) {
    return Error(ErrorCode::bug, error.what());
  } catch (...) {
    return Error(ErrorCode::bug, "an exception of unknown type");
  }
}

}  // namespace orrery
