/* A transport over Unix sockets, for ranks that are processes of one host: sockets.c tells how it works. */
#ifndef ORRERY_TESTS_C_API_SOCKETS_H
#define ORRERY_TESTS_C_API_SOCKETS_H

#include <orrery/orrery.h>

/* Meets the other ranks in the folder, which is theirs alone, and fills the transport in. Returns 0, or -1 with errno
 * when not all of them have come after `seconds`. */
int sockets_open(const char* folder, int rank, int world_size, double seconds, orrery_transport* transport);

#endif
