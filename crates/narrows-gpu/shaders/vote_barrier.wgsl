// Votes without subgroups: a workgroup of 32 threads is a chunk, and votes meet in workgroup memory.

struct Place {
    chunk: u32,
    lane: u32,
    part: u32,
}

const SPAN: u32 = 32u;

fn place(thread: u32, subgroup: u32, invocation: u32) -> Place {
    return Place(0u, thread, 0u);
}

struct Votes {
    below: u32,
    all: u32,
}

// Three ballots in turn: one is voted on, one may still be read, one is cleared for the next vote.
var<workgroup> ballots: array<atomic<u32>, 3>;
var<private> turn: u32 = 0u;

fn vote(yes: bool, at: Place) -> Votes {
    let next = select(turn + 1u, 0u, turn == 2u);
    if (at.lane == 0u) {
        atomicStore(&ballots[next], 0u);
    }
    if (yes) {
        atomicOr(&ballots[turn], 1u << at.lane);
    }
    workgroupBarrier();
    let ballot = atomicLoad(&ballots[turn]);
    turn = next;
    return Votes(countOneBits(ballot & ((1u << at.lane) - 1u)), countOneBits(ballot));
}
