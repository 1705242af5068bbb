/*
 * Looks that the requests of one turn of the reactor share.
 *
 * The events of a turn were there when the reactor woke. So each of its requests has begun
 * before, and what is looked at in the turn is looked at between its beginning and its reply,
 * whichever of them it was looked at for: a folder's identity, what it confers, and how much
 * room there is. A client that hears of a change, or of the end of its own, before it sends a
 * request, has that request in a later turn. What is said of the file of locks and of present
 * values holds only while a key is locked, so it is not shared.
 *
 * A turn is known by the time at which the reactor woke, which it writes to the row of its
 * process. A request that did not come with an event of the turn shares nothing: the first
 * one of a new connection, and what Python has the fast path serve. Commits that are published
 * together share the looks of that call alone: the first request of a new connection may be
 * among them.
 */

#include "fast_path.h"

/* What is served from now on has come with an event of the reactor's turn. */
void
begin_turn(FastPath *self)
{
    self->turn = *word_of(self->counts, self->counts->awake);
}

/* What is published until `end_turn` has begun before. */
void
begin_batch(FastPath *self)
{
    /* No time of a turn is as large. */
    self->turn = 1ULL << 63 | ++self->batches;
}

void
end_turn(FastPath *self)
{
    self->turn = 0;
}

/* Whether something was looked at in this turn. */
int
is_of_turn(const FastPath *self, unsigned long long looked)
{
    return looked != 0 && looked == self->turn;
}
