use std::collections::HashMap;

use crate::analysis::{Analysis, Analyst, product};
use crate::constant::constant_bytes;
use crate::graph::{Graph, Source};
use crate::open_dims::OpenDims;
use crate::seam::{Origin, Seam, Seams, side_bytes};
use crate::sizes::Sizes;
use crate::state::State;
use crate::{Model, Result};

/// Bytes of an element sent as it is.
pub(crate) const FLOAT32_BYTES: u64 = 4;

/// Where on the way through the model a cut lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The model's input: everything runs on the far side.
    Input,
    /// Between input and output: the only place where [`split`](crate::split()) applies.
    Inner,
    /// The model's output: everything runs on the near side.
    Output,
}

/// A small tensor that the tail needs beside the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Element type, such as `int64`.
    pub dtype: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Size in bytes, sent as it is.
    pub bytes: u64,
}

/// A tensor through which all data on the way from the model's inputs to its outputs pass: the *payload* of the cut.
///
/// Two more classes of tensor may be needed on the far side. *Side* tensors are small and come from what everybody
/// knows, masks and positions for instance; *state* never crosses: see [`cuts`].
///
/// Multiply-adds are those of convolutions and matrix products (`Conv`, `ConvTranspose`, `Gemm`, `MatMul` and their integer
/// forms). Shapes and multiply-adds are for the [`Sizes`] that open dimensions were taken to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Position in the list of cuts, counted from the model's input.
    pub index: usize,
    /// Where it lies.
    pub place: Place,
    /// Name of the payload.
    pub name: String,
    /// Operator that computes it, such as `Relu`; `None` for an input.
    pub op: Option<String>,
    /// Shape of the payload, the batch included.
    pub shape: Vec<usize>,
    /// Element type of the payload, such as `float32`.
    pub dtype: &'static str,
    /// Size of the payload in bytes if sent uncompressed as float32.
    pub bytes: u64,
    /// What the tail needs beside it.
    pub side: Vec<Side>,
    /// State that stays with the head.
    pub head_states: Vec<State>,
    /// State that stays with the tail.
    pub tail_states: Vec<State>,
    /// Multiply-adds of the head.
    pub macs_before: u64,
    /// Multiply-adds of the tail. What it recomputes counts on both sides.
    pub macs_after: u64,
    /// Bytes of constants that the head holds. A constant used on both sides counts on both.
    pub weight_bytes_before: u64,
    /// Bytes of constants that the tail holds.
    pub weight_bytes_after: u64,
}

/// All cuts of a model, from its input to its output, with open dimensions of the default [`Sizes`].
///
/// # Errors
/// As [`cuts_for`].
pub fn cuts(model: &Model) -> Result<Vec<Cut>> {
    cuts_for(model, &Sizes::default())
}

/// All cuts of a model, from its input to its output.
///
/// A float tensor `p` is the payload of a cut if the model's outputs can be computed from `p`, side tensors and state
/// alone. Precisely: let the *tail* be all operators that need `p`. Every output of the model but state and `p` itself must
/// come from the tail, and every tensor that the tail reads must be
///
/// - `p`, or made by the tail, or a constant; or
/// - **side**: recomputed in the tail from integer or truth-value inputs of the model and from shapes, with at most 1 %
///   of the model's multiply-adds and 1 % of its weights. Where the tail needs the shape of a tensor that it has not got,
///   it takes that of one with the same dimensions, such as another layer's cache, or else the head sends it, as a few
///   integers. All that is sent must be no larger than `p` at float32; or
/// - **state** (see [`State`]): input and output of the pair on the same side, and read there only.
///
/// In a network with one input and no state, this is the classic condition: one tensor is live.
///
/// # Errors
/// [`Error::Engine`](crate::Error::Engine), [`Error::UnknownShape`](crate::Error::UnknownShape),
/// [`Error::Unsupported`](crate::Error::Unsupported) or [`Error::LimitExceeded`](crate::Error::LimitExceeded) if the
/// model's shapes can't be worked out, and [`Error::NoSuchDimension`](crate::Error::NoSuchDimension) if a size is given for a
/// dimension that the model does not have.
pub fn cuts_for(model: &Model, sizes: &Sizes) -> Result<Vec<Cut>> {
    let graph = model.graph()?;
    let resolved = sizes.resolve(&graph)?;
    let analyst = Analyst::new(model.proto());
    let analysis = analyst.analyse(&graph, &resolved)?;
    let open = OpenDims::new(&analyst, &graph)?;
    let costs = Costs::new(&graph, &analysis)?;
    find_cuts(&graph, &analysis, &Seams::new(&graph, &analysis, &open, &costs), &costs)
}

pub(crate) fn find_cuts(
    graph: &Graph<'_>,
    analysis: &Analysis,
    seams: &Seams<'_, '_>,
    costs: &Costs,
) -> Result<Vec<Cut>> {
    let mut cuts = Vec::new();
    if let Some(input) = only_input(graph, seams) {
        cuts.push(trivial_cut(analysis, costs, input)?);
    }
    for (_, node) in graph.flow() {
        for output in node.output.iter().filter(|name| graph.span(name).is_some()) {
            if !analysis.dtype(output).is_ok_and(crate::constant::Dtype::is_float) {
                continue;
            }
            if let Ok(seam) = seams.at(output) {
                cuts.push(cut(graph, analysis, costs, seams, &seam, &node.op_type)?);
            }
        }
    }
    for (index, cut) in cuts.iter_mut().enumerate() {
        cut.index = index;
    }
    Ok(cuts)
}

/// The cuts that somebody may choose, in order: with work on both sides, and of several that are alike in work and
/// bytes the last. A tensor and its rectified twin are such a pair: the later one has no negative values left, and
/// compresses better. Mere copies (`Identity`, `Cast`) are left out.
pub fn offered(cuts: &[Cut]) -> Vec<&Cut> {
    let is_copy = |cut: &Cut| matches!(cut.op.as_deref(), Some("Identity" | "Cast"));
    let size = |cut: &Cut| (cut.macs_before, cut.macs_after, cut.bytes);
    let splits_work = |cut: &&Cut| cut.place == Place::Inner && cut.macs_before > 0 && cut.macs_after > 0;
    let is_twin = |cut: &Cut, later: &Cut| later.place == Place::Inner && size(later) == size(cut);
    let has_twin =
        |cut: &Cut| cuts.iter().skip(cut.index + 1).any(|later| !is_copy(later) && is_twin(cut, later));
    cuts.iter().filter(splits_work).filter(|cut| !is_copy(cut) && !has_twin(cut)).collect()
}

/// The one input of a model that is not state; with two, neither is a cut.
fn only_input<'a>(graph: &Graph<'a>, seams: &Seams<'_, 'a>) -> Option<&'a str> {
    let names = graph.data_inputs().map(|input| input.name.as_str());
    let mut names = names.filter(|name| graph.span(name).is_some() && !seams.is_state_input(name));
    names.next().filter(|_| names.next().is_none())
}

/// The input of a model as a cut: the tail is everything.
fn trivial_cut(analysis: &Analysis, costs: &Costs, input: &str) -> Result<Cut> {
    let shape = analysis.shape(input)?;
    Ok(Cut {
        index: 0,
        place: Place::Input,
        name: input.into(),
        op: None,
        dtype: analysis.dtype(input)?.name,
        bytes: product(&shape).saturating_mul(FLOAT32_BYTES),
        shape,
        side: Vec::new(),
        head_states: Vec::new(),
        tail_states: Vec::new(),
        macs_before: 0,
        macs_after: costs.total_macs(),
        weight_bytes_before: 0,
        weight_bytes_after: costs.total_weights(),
    })
}

fn cut(
    graph: &Graph<'_>,
    analysis: &Analysis,
    costs: &Costs,
    seams: &Seams<'_, '_>,
    seam: &Seam<'_>,
    op: &str,
) -> Result<Cut> {
    let shape = analysis.shape(seam.payload)?;
    let side = seam.side.iter().map(|&(name, origin)| {
        let (dtype, shape) = (analysis.dtype(name)?.name, analysis.shape(name)?);
        Ok(Side { name: name.into(), origin, dtype, shape, bytes: side_bytes(analysis, name) })
    });
    let runs = |nodes: &[bool]| {
        total(nodes.iter().zip(&costs.macs).filter(|(runs, _)| **runs).map(|(_, macs)| macs))
    };
    let is_output = seams.outputs().any(|output| output == seam.payload);
    let is_needed = graph.flow().any(|(position, _)| seam.tail[position]);
    Ok(Cut {
        index: 0,
        place: if is_output && !is_needed { Place::Output } else { Place::Inner },
        name: seam.payload.into(),
        op: Some(op.into()),
        dtype: analysis.dtype(seam.payload)?.name,
        bytes: product(&shape).saturating_mul(FLOAT32_BYTES),
        shape,
        side: side.collect::<Result<_>>()?,
        head_states: seam.head_states.clone(),
        tail_states: seam.tail_states.clone(),
        macs_before: runs(&seam.head),
        macs_after: runs(&seam.tail),
        weight_bytes_before: costs
            .weights(|name| seam.head_reads.contains(name), |position| seam.head[position]),
        weight_bytes_after: costs
            .weights(|name| seam.tail_reads.contains(name), |position| seam.tail[position]),
    })
}

/// What each node computes, and how large each constant is.
pub(crate) struct Costs {
    /// Multiply-adds of each node.
    pub(crate) macs: Vec<u64>,
    /// Bytes of each initialiser that somebody needs.
    initialisers: HashMap<String, u64>,
    /// Bytes of the constants held in each node.
    held: Vec<u64>,
}

impl Costs {
    pub(crate) fn new(graph: &Graph<'_>, analysis: &Analysis) -> Result<Self> {
        let mut macs = vec![0; graph.end()];
        for (position, node) in graph.flow() {
            macs[position] = analysis.macs(node)?;
        }
        let needed =
            graph.proto.initializer.iter().filter(|initialiser| graph.span(&initialiser.name).is_some());
        let initialisers = needed.map(|initialiser| {
            Ok((initialiser.name.clone(), constant_bytes(initialiser, &initialiser.name)?))
        });
        let initialisers = initialisers.collect::<Result<_>>()?;
        let mut held = vec![0; graph.end()];
        for (position, node) in graph.proto.node.iter().enumerate() {
            if graph.node_span(position).is_none() {
                continue;
            }
            for tensor in node.attribute.iter().filter_map(|attribute| attribute.t.as_ref()) {
                held[position] += constant_bytes(tensor, &node.name)?;
            }
        }
        Ok(Self { macs, initialisers, held })
    }

    /// Bytes of the constants of some nodes and initialisers.
    pub(crate) fn weights(&self, reads: impl Fn(&str) -> bool, runs: impl Fn(usize) -> bool) -> u64 {
        let initialisers = self.initialisers.iter().filter(|(name, _)| reads(name)).map(|(_, bytes)| bytes);
        let held =
            self.held.iter().enumerate().filter(|(position, _)| runs(*position)).map(|(_, bytes)| bytes);
        total(initialisers.chain(held))
    }

    pub(crate) fn total_macs(&self) -> u64 {
        total(&self.macs)
    }

    pub(crate) fn total_weights(&self) -> u64 {
        self.weights(|_| true, |_| true)
    }
}

fn total<'a>(numbers: impl IntoIterator<Item = &'a u64>) -> u64 {
    numbers.into_iter().fold(0, |sum, &number| sum.saturating_add(number))
}

/// Position of the node that computes a tensor.
pub(crate) fn producer(graph: &Graph<'_>, name: &str) -> Option<usize> {
    match graph.sources.get(name) {
        Some(&Source::Node(position)) => Some(position),
        _ => None,
    }
}
