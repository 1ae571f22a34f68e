// Votes by subgroups of a fixed SUBGROUP. A chunk is 32 lanes: LANES_EACH of every thread of a small subgroup, or one of
// several parts of a large one.

struct Place {
    // The chunk within the workgroup, its first lane of this thread, and the distance to the next.
    chunk: u32,
    lane: u32,
    part: u32,
}

const SPAN: u32 = min(SUBGROUP, 32u);

fn place(thread: u32, subgroup: u32, invocation: u32) -> Place {
    let parts = max(SUBGROUP / 32u, 1u);
    let part = invocation / 32u;
    return Place(subgroup * parts + part, invocation % SPAN, part);
}

struct Votes {
    below: u32,
    all: u32,
}

// How many of 32 lanes (of a small subgroup: of SUBGROUP lanes) say yes, and how many below this one.
fn vote(yes: bool, at: Place) -> Votes {
    let ballot = subgroupBallot(yes)[at.part];
    return Votes(countOneBits(ballot & ((1u << at.lane) - 1u)), countOneBits(ballot));
}
