//! What crosses when a model is cut at a tensor, and what runs on either side of it.

use std::collections::{HashMap, HashSet};

use crate::analysis::Analysis;
use crate::constant::Dtype;
use crate::cuts::{Costs, FLOAT32_BYTES};
use crate::graph::{Graph, Source, is_random, node_is_default_domain};
use crate::open_dims::OpenDims;
use crate::sizes::Dim;
use crate::state::{State, pairs};

/// The most a tail may recompute of what the head computes too, as a share of the whole model: of its
/// multiply-adds, and of the bytes of its constants. A mask or a table of positions costs far less, an embedding or
/// a layer far more.
const RECOMPUTED: u64 = 100;

/// Where a side tensor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It is an input of the whole model. Whoever feeds the head feeds it to the tail as well.
    Input,
    /// It is a second output of the head: a shape that only the head knows.
    Head,
}

/// A model's cut at a tensor. Positions are those of nodes.
#[derive(Clone, Debug)]
pub(crate) struct Seam<'a> {
    pub(crate) payload: &'a str,
    /// Nodes that the head runs, constant ones included.
    pub(crate) head: Vec<bool>,
    /// Nodes that the tail runs; one that is cheap may run in both.
    pub(crate) tail: Vec<bool>,
    /// Inputs and initialisers that the head reads.
    pub(crate) head_reads: HashSet<&'a str>,
    /// Inputs and initialisers that the tail reads.
    pub(crate) tail_reads: HashSet<&'a str>,
    pub(crate) side: Vec<(&'a str, Origin)>,
    /// Nodes of the tail that take a shape, with the tensor of that same shape to take it of.
    pub(crate) stand_ins: Vec<(usize, &'a str)>,
    pub(crate) head_states: Vec<State>,
    pub(crate) tail_states: Vec<State>,
}

/// A model, with what is needed to find its seams.
pub(crate) struct Seams<'g, 'a> {
    graph: &'g Graph<'a>,
    analysis: &'g Analysis,
    open: &'g OpenDims,
    costs: &'g Costs,
    states: Vec<State>,
    state_inputs: HashSet<String>,
    state_outputs: HashSet<String>,
}

impl<'g, 'a> Seams<'g, 'a> {
    pub(crate) fn new(
        graph: &'g Graph<'a>,
        analysis: &'g Analysis,
        open: &'g OpenDims,
        costs: &'g Costs,
    ) -> Self {
        let states = pairs(graph);
        let state_inputs = states.iter().map(|state| state.input.clone()).collect();
        let state_outputs = states.iter().map(|state| state.output.clone()).collect();
        Self { graph, analysis, open, costs, states, state_inputs, state_outputs }
    }

    pub(crate) fn is_state_input(&self, name: &str) -> bool {
        self.state_inputs.contains(name)
    }

    /// Outputs that somebody waits for: all but state.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &'a str> {
        let names = self.graph.proto.output.iter().map(|output| output.name.as_str());
        names.filter(|name| !self.state_outputs.contains(*name))
    }

    /// The seam at a tensor that a node computes from data, or the other tensors that would have to cross with it.
    pub(crate) fn at(&self, payload: &'a str) -> Result<Seam<'a>, Vec<&'a str>> {
        let Some(&Source::Node(origin)) = self.graph.sources.get(payload) else { return Err(Vec::new()) };
        let mut tail = Tail::new(self, payload, self.downstream(payload, origin));
        for output in self.outputs().filter(|&output| output != payload) {
            if tail.computes(output) || self.graph.is_constant(output) {
                tail.need(output);
            } else {
                // It would have to be sent as well.
                tail.refuse(output);
            }
        }
        let tail_states: Vec<State> =
            self.states.iter().filter(|state| tail.computes(&state.output)).cloned().collect();
        for state in &tail_states {
            if let Some(output) = self.graph.proto.output.iter().find(|output| output.name == state.output) {
                tail.need(&output.name);
            }
        }
        tail.settle_shapes();
        if !tail.obstacles.is_empty() {
            return Err(tail.obstacles);
        }
        if !self.is_cheap(&tail) {
            return Err(tail.borrowed);
        }
        let head_states: Vec<State> =
            self.states.iter().filter(|state| !tail_states.contains(state)).cloned().collect();
        let (head, head_reads) = self.head(payload, &tail, &head_states);
        // A state lives on one side.
        let astray = |read: &&&'a str| {
            let foreign = |states: &[State]| states.iter().any(|state| state.input == **read);
            (tail.reads.contains(**read) && foreign(&head_states))
                || (head_reads.contains(**read) && foreign(&tail_states))
        };
        let torn: Vec<&'a str> = tail.reads.union(&head_reads).filter(astray).copied().collect();
        if !torn.is_empty() {
            return Err(torn);
        }
        let side = tail.side();
        let Tail { nodes, reads, stand_ins, .. } = tail;
        Ok(Seam {
            payload,
            head,
            tail: nodes,
            head_reads,
            tail_reads: reads,
            side,
            stand_ins,
            head_states,
            tail_states,
        })
    }

    /// The other tensors that would have to cross with one that is no cut.
    pub(crate) fn beside(&self, payload: &'a str) -> Vec<&'a str> {
        match self.graph.sources.get(payload) {
            Some(Source::Input(_)) => {
                let names = self.graph.data_inputs().map(|input| input.name.as_str());
                let needed = names.filter(|name| self.graph.span(name).is_some());
                needed.filter(|name| *name != payload && !self.is_state_input(name)).collect()
            }
            _ => self.at(payload).err().unwrap_or_default(),
        }
    }

    /// Nodes that need the payload.
    fn downstream(&self, payload: &str, origin: usize) -> Vec<bool> {
        let mut downstream = vec![false; self.graph.end()];
        for position in origin + 1..self.graph.end() {
            downstream[position] = self.graph.node_span(position).is_some()
                && self.graph.reads(position).iter().any(|&read| {
                    read == payload
                        || matches!(self.graph.sources.get(read), Some(&Source::Node(node)) if downstream[node])
                });
        }
        downstream
    }

    /// Everything behind the payload, the head's state and the shapes that the tail asks for.
    fn head(
        &self,
        payload: &'a str,
        tail: &Tail<'_, 'g, 'a>,
        states: &[State],
    ) -> (Vec<bool>, HashSet<&'a str>) {
        let mut nodes = vec![false; self.graph.end()];
        let mut reads = HashSet::new();
        let mut open: Vec<&'a str> = vec![payload];
        open.extend(&tail.sent);
        let outputs = self.graph.proto.output.iter().map(|output| output.name.as_str());
        open.extend(outputs.filter(|name| states.iter().any(|state| state.output == *name)));
        while let Some(name) = open.pop() {
            match self.graph.sources.get(name) {
                Some(&Source::Node(position)) if !nodes[position] => {
                    nodes[position] = true;
                    open.extend(self.graph.reads(position));
                }
                Some(Source::Input(_) | Source::Initialiser(_)) => {
                    reads.insert(name);
                }
                _ => {}
            }
        }
        (nodes, reads)
    }

    /// Whether the tail gets no more beside the payload than the payload itself is, uncompressed, and recomputes too
    /// little to matter.
    fn is_cheap(&self, tail: &Tail<'_, 'g, 'a>) -> bool {
        let macs: u64 = tail.recomputed.iter().map(|&position| self.costs.macs[position]).sum();
        let constants = self.costs.weights(
            |name| tail.recomputed_reads.contains(name),
            |position| tail.recomputed.contains(&position),
        );
        let bytes =
            tail.side().iter().map(|(name, _)| side_bytes(self.analysis, name)).fold(0, u64::saturating_add);
        let payload = self
            .analysis
            .shape(tail.payload)
            .map_or(0, |shape| crate::analysis::product(&shape).saturating_mul(FLOAT32_BYTES));
        macs.saturating_mul(RECOMPUTED) <= self.costs.total_macs()
            && constants.saturating_mul(RECOMPUTED) <= self.costs.total_weights()
            && bytes <= payload
    }
}

/// Bytes of a side tensor sent as it is; those of an unknown shape count as a large one.
pub(crate) fn side_bytes(analysis: &Analysis, name: &str) -> u64 {
    let elements = analysis.shape(name).map(|shape| crate::analysis::product(&shape));
    let bytes = analysis.dtype(name).map_or(8, Dtype::element_bytes);
    elements.map_or(u64::from(u32::MAX), |elements| elements.saturating_mul(bytes))
}

/// The far side of a seam while it is being found.
struct Tail<'s, 'g, 'a> {
    seams: &'s Seams<'g, 'a>,
    payload: &'a str,
    downstream: Vec<bool>,
    nodes: Vec<bool>,
    reads: HashSet<&'a str>,
    /// Nodes off the payload's way that it runs for itself, and what they read.
    recomputed: HashSet<usize>,
    recomputed_reads: HashSet<&'a str>,
    /// Shapes it needs of tensors that it may not have, by the node that takes them.
    shapes: HashMap<usize, &'a str>,
    /// Those of them that another tensor of the tail has too.
    stand_ins: Vec<(usize, &'a str)>,
    /// And those that the head must send.
    sent: Vec<&'a str>,
    /// Tensors off the payload's way that it reads, as far as they can be recomputed.
    borrowed: Vec<&'a str>,
    /// And those that can't.
    obstacles: Vec<&'a str>,
}

impl<'s, 'g, 'a> Tail<'s, 'g, 'a> {
    fn new(seams: &'s Seams<'g, 'a>, payload: &'a str, downstream: Vec<bool>) -> Self {
        Self {
            seams,
            payload,
            nodes: vec![false; downstream.len()],
            downstream,
            reads: HashSet::new(),
            recomputed: HashSet::new(),
            recomputed_reads: HashSet::new(),
            shapes: HashMap::new(),
            stand_ins: Vec::new(),
            sent: Vec::new(),
            borrowed: Vec::new(),
            obstacles: Vec::new(),
        }
    }

    /// Whether a tensor comes out of a node that needs the payload.
    fn computes(&self, name: &str) -> bool {
        matches!(self.seams.graph.sources.get(name), Some(&Source::Node(position)) if self.downstream[position])
    }

    /// Take in all that a tensor of the tail is computed from.
    fn need(&mut self, name: &'a str) {
        let graph = self.seams.graph;
        let mut open = vec![name];
        while let Some(name) = open.pop() {
            match graph.sources.get(name) {
                _ if name == self.payload => {}
                Some(&Source::Node(position)) if self.downstream[position] || graph.is_constant(name) => {
                    if !std::mem::replace(&mut self.nodes[position], true) {
                        open.extend(graph.reads(position));
                    }
                }
                Some(Source::Initialiser(_)) => {
                    self.reads.insert(name);
                }
                _ => self.borrow(name),
            }
        }
    }

    /// Recompute a tensor off the payload's way, or note that it can't be.
    fn borrow(&mut self, name: &'a str) {
        let graph = self.seams.graph;
        let mut open = vec![name];
        let (mut nodes, mut reads, mut shapes) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        while let Some(read) = open.pop() {
            if !seen.insert(read) {
                continue;
            }
            let source = graph.sources.get(read);
            match source {
                Some(Source::Initialiser(_)) => reads.push(read),
                Some(Source::Input(_)) if read == name && self.seams.is_state_input(read) => reads.push(read),
                Some(Source::Input(position)) if is_side_input(&graph.proto.input[*position]) => {
                    reads.push(read);
                }
                Some(&Source::Node(position)) => {
                    let node = &graph.proto.node[position];
                    if is_random(node) {
                        return self.refuse(name);
                    }
                    if takes_shape(node) && !graph.is_constant(read) {
                        shapes.push((position, read));
                    } else {
                        nodes.push(position);
                        open.extend(graph.reads(position));
                    }
                }
                Some(Source::Input(_)) | None => return self.refuse(name),
            }
        }
        self.borrowed.push(name);
        nodes.iter().for_each(|&position| self.nodes[position] = true);
        self.recomputed_reads.extend(reads.iter().filter(|read| graph.is_constant(read)));
        self.recomputed.extend(nodes);
        self.reads.extend(reads);
        self.shapes.extend(shapes);
    }

    fn refuse(&mut self, name: &'a str) {
        if !self.obstacles.contains(&name) {
            self.obstacles.push(name);
        }
    }

    /// Take the shapes of tensors that the tail has, or of others that the model says are alike, and have the rest sent.
    fn settle_shapes(&mut self) {
        let graph = self.seams.graph;
        let mut shapes: Vec<(usize, &'a str)> = self.shapes.drain().collect();
        shapes.sort_unstable();
        for (position, shape) in shapes {
            let has = |read: &&'a str| match graph.sources.get(*read) {
                Some(&Source::Node(node)) => self.nodes[node],
                Some(_) => self.reads.contains(*read),
                None => false,
            };
            let known = graph.reads(position).iter().all(has);
            let stand_in = if known { None } else { self.stand_in(position) };
            self.stand_ins.extend(stand_in.map(|tensor| (position, tensor)));
            if known || stand_in.is_some() {
                self.nodes[position] = true;
                self.recomputed.insert(position);
            } else {
                self.sent.push(shape);
            }
        }
    }

    /// A tensor of the tail that has the same dimensions as the one whose shape a node takes: the payload, or an input
    /// such as another layer's cache.
    fn stand_in(&self, position: usize) -> Option<&'a str> {
        let &[read] = self.seams.graph.reads(position) else { return None };
        let dims = |name: &str| {
            let dims = self.seams.open.shape(name).ok()?;
            dims.iter().all(|dim| *dim != Dim::Open(String::new())).then_some(dims)
        };
        let wanted = dims(read)?;
        let inputs = self.seams.graph.data_inputs().map(|input| input.name.as_str());
        let inputs = inputs.filter(|name| self.reads.contains(name));
        std::iter::once(self.payload).chain(inputs).find(|name| dims(name).is_some_and(|dims| dims == wanted))
    }

    /// What it takes beside the payload: inputs of the model first, in their order.
    fn side(&self) -> Vec<(&'a str, Origin)> {
        let names = self.seams.graph.data_inputs().map(|input| input.name.as_str());
        let inputs = names.filter(|name| self.reads.contains(name) && !self.seams.is_state_input(name));
        let inputs = inputs.map(|name| (name, Origin::Input));
        inputs.chain(self.sent.iter().map(|&name| (name, Origin::Head))).collect()
    }
}

/// Token numbers, positions and masks come as integers or truth values; anything else is data.
fn is_side_input(input: &tract_onnx::pb::ValueInfoProto) -> bool {
    crate::analysis::declared_dtype(input).is_some_and(|dtype| !dtype.is_float())
}

/// Whether a node reads nothing of its input but its shape.
fn takes_shape(node: &tract_onnx::pb::NodeProto) -> bool {
    node_is_default_domain(node) && matches!(node.op_type.as_str(), "Shape" | "Size")
}
