/* A transport over Unix sockets. Two ranks share a socket for each lane, so lanes cannot hold each other up. What is
 * sent on a lane goes through its socket one message after the other, and nothing stands between them: both ends know
 * how long each is. To meet, a rank listens in a file named by its number, calls all lower ranks, and says who it is
 * and for which lane. A rank that ends, however it does, closes its sockets, which is what the others see. */
#define _GNU_SOURCE
#include "sockets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { LANES = 6 + ORRERY_OWN_LANES };

typedef struct {
  int rank, world_size;
  int* fds;   /* [world_size][LANES]; -1 for the rank itself */
  char* busy; /* [world_size][LANES][2]: in a poll, the way is taken by an earlier message */
} sockets;

typedef struct {
  int count, under_way;
  orrery_message* messages; /* [count] */
  size_t* moved;            /* [count]: bytes of the message */
  int* posted;              /* [under_way]: numbers, in order */
} parcel;

static int place_of(int peer, int lane) {
  return peer * LANES + lane + ORRERY_OWN_LANES;
}

static void release(void* user, void* prepared) {
  parcel* p = prepared;
  (void)user;
  free(p->messages);
  free(p->moved);
  free(p->posted);
  free(p);
}

static orrery_status prepare(void* user, const orrery_message* messages, int count, void** prepared, char* text,
                             size_t text_size) {
  const size_t room = (size_t)count + 1;
  for (int i = 0; i < count; ++i) {
    if (messages[i].lane < LANES - ORRERY_OWN_LANES) continue;
    snprintf(text, text_size, "lane %d of a transport with %d", messages[i].lane, LANES - ORRERY_OWN_LANES);
    return ORRERY_INVALID;
  }
  parcel* p = calloc(1, sizeof *p);
  if (p == NULL) return ORRERY_RESOURCE;
  p->count = count;
  p->messages = malloc(room * sizeof *p->messages);
  p->moved = malloc(room * sizeof *p->moved);
  p->posted = malloc(room * sizeof *p->posted);
  if (p->messages == NULL || p->moved == NULL || p->posted == NULL) {
    release(user, p);
    return ORRERY_RESOURCE;
  }
  memcpy(p->messages, messages, (size_t)count * sizeof *messages);
  *prepared = p;
  return ORRERY_OK;
}

static orrery_status post(void* user, void* prepared, const int* numbers, int count, char* text, size_t text_size) {
  parcel* p = prepared;
  (void)user, (void)text, (void)text_size;
  for (int i = 0; i < count; ++i) {
    p->moved[numbers[i]] = 0;
    p->posted[p->under_way++] = numbers[i];
  }
  return ORRERY_OK;
}

/* Moves as much of a message as the socket takes or has. */
static orrery_status move(int fd, const orrery_message* m, size_t* moved, char* text, size_t text_size) {
  while (*moved < m->bytes) {
    char* at = (char*)m->data + *moved;
    const ssize_t bytes = m->receive ? recv(fd, at, m->bytes - *moved, MSG_DONTWAIT)
                                     : send(fd, at, m->bytes - *moved, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return ORRERY_OK;
    if (bytes <= 0) {
      snprintf(text, text_size, "rank %d has closed its socket of lane %d: %zu of %zu bytes outstanding to %s", m->peer,
               m->lane, m->bytes - *moved, m->bytes, m->receive ? "receive" : "send");
      return ORRERY_PEER;
    }
    *moved += (size_t)bytes;
  }
  return ORRERY_OK;
}

static orrery_status poll_all(void* user, void* prepared, int* complete, int* count, char* text, size_t text_size) {
  sockets* s = user;
  parcel* p = prepared;
  int left = 0;
  *count = 0;
  memset(s->busy, 0, (size_t)s->world_size * LANES * 2);
  for (int i = 0; i < p->under_way; ++i) {
    const int number = p->posted[i];
    const orrery_message* m = &p->messages[number];
    const int place = place_of(m->peer, m->lane);
    char* busy = &s->busy[2 * place + (m->receive != 0)];
    const orrery_status status = *busy ? ORRERY_OK : move(s->fds[place], m, &p->moved[number], text, text_size);
    if (status != ORRERY_OK) return status;
    if (!*busy && p->moved[number] == m->bytes) {
      complete[(*count)++] = number;
    } else {
      *busy = 1;
      p->posted[left++] = number;
    }
  }
  p->under_way = left;
  return ORRERY_OK;
}

static void abort_all(void* user, orrery_status status, const char* message) {
  const sockets* s = user;
  (void)status, (void)message;
  for (int i = 0; i < s->world_size * LANES; ++i) shutdown(s->fds[i], SHUT_RDWR);
}

static void close_all(void* user) {
  sockets* s = user;
  for (int i = 0; s->fds != NULL && i < s->world_size * LANES; ++i) {
    if (s->fds[i] >= 0) close(s->fds[i]);
  }
  free(s->fds);
  free(s->busy);
  free(s);
}

/* Meeting: all that follows may wait, for it happens before there is a world. */

static int meet(sockets* s, const char* folder, double seconds) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  const struct timeval patience = {.tv_sec = (time_t)seconds + 1};
  const struct timespec pause = {.tv_nsec = 1000000};
  const time_t until = time(NULL) + patience.tv_sec;
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  int good = listener >= 0 && setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0;
  snprintf(name.sun_path, sizeof name.sun_path, "%s/%d", folder, s->rank);
  good =
      good && bind(listener, (struct sockaddr*)&name, sizeof name) == 0 && listen(listener, s->world_size * LANES) == 0;
  for (int i = 0; good && i < s->rank * LANES; ++i) { /* calls */
    int greeting[2] = {s->rank, i % LANES};
    s->fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(name.sun_path, sizeof name.sun_path, "%s/%d", folder, i / LANES);
    while (connect(s->fds[i], (struct sockaddr*)&name, sizeof name) != 0 && time(NULL) < until) nanosleep(&pause, NULL);
    good = send(s->fds[i], greeting, sizeof greeting, MSG_NOSIGNAL) == sizeof greeting;
  }
  for (int i = (s->rank + 1) * LANES; good && i < s->world_size * LANES; ++i) { /* is called */
    int greeting[2];
    const int fd = accept(listener, NULL, NULL);
    good = fd >= 0 && recv(fd, greeting, sizeof greeting, MSG_WAITALL) == sizeof greeting;
    if (good) s->fds[greeting[0] * LANES + greeting[1]] = fd;
  }
  if (listener >= 0) close(listener);
  return good ? 0 : -1;
}

int sockets_open(const char* folder, int rank, int world_size, double seconds, orrery_transport* transport) {
  const orrery_transport filled = {sizeof filled, NULL, rank,     world_size, "sockets", NULL,
                                   prepare,       post, poll_all, release,    abort_all, close_all};
  sockets* s = calloc(1, sizeof *s);
  if (s == NULL) return -1;
  s->rank = rank;
  s->world_size = world_size;
  s->fds = malloc(sizeof(int) * (size_t)world_size * LANES);
  s->busy = malloc((size_t)world_size * LANES * 2);
  for (int i = 0; s->fds != NULL && i < world_size * LANES; ++i) s->fds[i] = -1;
  if (s->fds == NULL || s->busy == NULL || meet(s, folder, seconds) != 0) {
    close_all(s);
    return -1;
  }
  *transport = filled;
  transport->user = s;
  return 0;
}
