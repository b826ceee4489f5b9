/*
 * The credentials of one identity in a fleet of replicas with a shared store (docs/design/fleet.md), for spin.
 *
 * Checked: a replica never uses a generation again after it has learnt of its rejection; the store never
 * gives one out after that; a holder that lost its lease does not overwrite what its successor wrote; and
 * nobody waits for ever, whatever messages are lost and whichever replica dies.
 *
 * A generation that was renewed is superseded: replicas that have the older one look for the newer one before
 * they use it again, and go on with theirs if there is none.
 *
 * The leases of the store have random names, which are numbers in order here: a greater number is a later
 * lease. A generation has the name of the lease under which it was fetched. Leases may end at any moment, which
 * stands for a slow holder, and for a holder that is gone.
 *
 * Leaving one mechanism out must make the check fail (docs/design/fleet/check): NO_FENCE, NO_TOMBSTONES,
 * NO_POLL.
 */

#define REPLICAS 2
#ifndef LEASES
#define LEASES 4       /* one more than the exchanges that the model allows in all; 0 is "none" */
#endif
#ifndef REVOCATIONS
#define REVOCATIONS 1  /* how often the upstream rejects everything issued so far */
#endif
#define PUSHES 2       /* messages on their way to one replica; more are lost */

/* The store. Each `atomic` block that touches it is one script. */
byte stored = 0;        /* the generation in it */
byte lease = 0;         /* the lease that is held */
byte next = 1;
byte written = 0;       /* the latest generation that was ever written */
bool invalidated[LEASES];

/* The upstream accepts generations of its present epoch. */
byte epoch = 0;
byte issued_in[LEASES];

/* What the store tells replicas. A message may be lost, and may overtake a reply. */
mtype = { rejected, filled };
chan push[REPLICAS] = [PUSHES] of { mtype, byte };

bool dead[REPLICAS];
byte deaths = 0;

inline tell(kind, generation) {
    byte to;
    for (to : 0 .. REPLICAS - 1) {
        if
        :: to != _pid && nfull(push[to]) -> push[to] ! kind(generation)
        :: skip  /* lost, or its own */
        fi
    }
    to = 0;
}

active [REPLICAS] proctype Replica() {
    byte cached = 0;              /* the generation in this replica's cache */
    bool knows_rejected[LEASES]; /* what it has learnt of: its tombstones */
    bool superseded = false;      /* another replica has a newer generation than the cached one */
    byte reply, mine, fetched_in, told;
    byte requests = 0;

request:
    requests++;
    if
    :: requests > 2 -> goto end
    :: else
    fi;

ready:
    /* What was pushed is read before, after, or between any two steps. */
    do
    :: push[_pid] ? rejected(told) ->
        atomic {
            knows_rejected[told] = true;
            if
            :: cached == told -> cached = 0
            :: else
            fi
        }
    :: push[_pid] ? filled(told) ->
        if
        :: cached != 0 && told > cached -> superseded = true
        :: else
        fi
    :: break
    od;
    if
    :: cached != 0 && !superseded -> goto use
    :: cached != 0 && superseded ->
        /* Script `read`: what is there, if it is another generation. Never a lease. */
        atomic {
            superseded = false;
            reply = stored;
            if
            :: reply == cached -> reply = 0
            :: else
            fi
        }
        goto answer
    :: else
    fi;

ask:
    /* Script `acquire`: the generation, or the lease, or neither. */
    atomic {
        reply = 0;
        mine = 0;
        if
        :: stored != 0 ->
            reply = stored;
            assert(!invalidated[reply])
        :: stored == 0 && lease == 0 ->
            if
            :: next < LEASES -> lease = next; mine = next; next++
            :: else -> goto end  /* the bound of the model */
            fi
        :: else
        fi
    }
answer:
    if
    :: reply != 0 ->
        /* The reply is on its way; a push that was sent later may be read first. */
        do
        :: push[_pid] ? rejected(told) ->
            atomic {
                knows_rejected[told] = true;
                if
                :: cached == told -> cached = 0
                :: else
                fi
            }
        :: push[_pid] ? filled(told)
        :: break
        od;
        atomic {
            if
#ifndef NO_TOMBSTONES
            :: knows_rejected[reply] -> reply = 0
#endif
            :: else -> cached = reply; reply = 0
            fi
        }
        goto ready
    :: reply == 0 && cached != 0 -> goto use
    :: mine != 0 -> goto exchange
    :: else -> goto wait
    fi;

wait:
    do
    :: push[_pid] ? filled(told) -> goto ask
    :: push[_pid] ? rejected(told) -> knows_rejected[told] = true
#ifndef NO_POLL
    :: lease == 0 || stored != 0 -> goto ask  /* the next look at the store */
#endif
    od;

exchange:
    if
    :: deaths == 0 -> atomic { deaths++; dead[_pid] = true }; goto end  /* with the lease in hand */
    :: skip
    fi;
    fetched_in = epoch;
    /* The exchange takes a while: the lease may end, and another may be given out. */
    /* Script `complete`: writes if the lease is still held. */
    atomic {
        issued_in[mine] = fetched_in;
        if
#ifndef NO_FENCE
        :: lease == mine ->
#else
        :: true ->
#endif
            assert(mine > written);
            written = mine;
            stored = mine;
            if
            :: lease == mine -> lease = 0
            :: else
            fi;
            tell(filled, mine)
        :: else  /* it is of use to this replica all the same */
        fi;
        cached = mine;
        mine = 0
    }

use:
    assert(cached == 0 || !knows_rejected[cached]);
    if
    :: cached == 0 -> goto ready
    :: cached != 0 && issued_in[cached] == epoch -> goto request
    :: cached != 0 && issued_in[cached] != epoch ->
        /* 401. Script `invalidate`: drops exactly this generation. */
        atomic {
            knows_rejected[cached] = true;
            invalidated[cached] = true;
            if
            :: stored == cached -> stored = 0
            :: else
            fi;
            tell(rejected, cached);
            cached = 0
        }
        goto ready
    fi;

end:
    /* Messages to a replica that is gone or done are not waited for. */
    do
    :: push[_pid] ? _, told
    od
}

/* Ends leases, at any moment; always in the end if the holder is dead. */
active proctype Expiry() {
end:
    do
    :: atomic { lease != 0 -> lease = 0 }
    od
}

active proctype Upstream() {
    byte revocations = 0;
end:
    do
    :: revocations < REVOCATIONS -> atomic { revocations++; epoch++ }
    od
}
