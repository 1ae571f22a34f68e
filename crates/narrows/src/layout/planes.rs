//! How a tensor falls apart into planes, each the positions of one channel.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::tensor::Shape;

/// A tensor seen as `count` planes of `positions` symbols, each plane `width` symbols wide.
///
/// With channels first (`C x H x W`, `N x C x H x W`) a plane is one channel of one sample and lies
/// in one piece; with the channel axis last (`tokens x features`, `H x W x C`) a plane is one feature
/// and its positions are `channels` elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes {
    axis: usize,
    outer: usize,
    channels: usize,
    inner: usize,
    width: usize,
}

impl Planes {
    /// The planes of `shape` with its channels along `axis`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no such axis.
    pub fn new(shape: &Shape, axis: usize) -> Result<Self> {
        let dims = shape.dims();
        if axis >= dims.len() {
            return Err(Error::Shape { what: "channel axis", value: axis, bound: dims.len() - 1 });
        }
        let outer = dims[..axis].iter().product();
        let inner = dims[axis + 1..].iter().product();
        let width = match (inner, axis) {
            (1, 0) => 1,
            (1, axis) => dims[axis - 1],
            _ => dims[dims.len() - 1],
        };
        Ok(Self { axis, outer, channels: dims[axis], inner, width: width.max(1) })
    }

    /// The axis that most tensors of this shape keep their channels in: the only one of a vector,
    /// the last of a matrix (`tokens x features`), the first of `C x H x W`, the second otherwise.
    pub fn usual_axis(shape: &Shape) -> usize {
        match shape.rank() {
            1 | 3 => 0,
            _ => 1,
        }
    }

    /// The axis that holds the channels.
    pub const fn axis(&self) -> usize {
        self.axis
    }

    /// Length of the channel axis.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Number of planes.
    pub const fn count(&self) -> usize {
        if self.channels_last() { self.channels } else { self.outer * self.channels }
    }

    /// Positions of a plane.
    pub const fn positions(&self) -> usize {
        if self.channels_last() { self.outer } else { self.inner }
    }

    /// Positions in one line of a plane; the neighbour above a position is this many before it.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Whether planes lie side by side, one symbol of each after the other, rather than each in one piece.
    pub(crate) const fn channels_last(&self) -> bool {
        self.inner == 1
    }

    /// Offset, in row-major order, of a position of a plane.
    pub const fn offset(&self, plane: usize, position: usize) -> usize {
        if self.channels_last() { position * self.channels + plane } else { plane * self.inner + position }
    }

    /// Neighbouring elements of one channel.
    pub const fn inner(&self) -> usize {
        self.inner
    }

    /// Elements from a position to the next of its plane, and from a plane to the next.
    pub const fn strides(&self) -> (usize, usize) {
        if self.channels_last() { (self.channels, 1) } else { (1, self.inner) }
    }

    /// The plane and the position of the element at this row-major offset; the inverse of [`Planes::offset`].
    pub const fn place(&self, offset: usize) -> (usize, usize) {
        if self.channels_last() {
            (offset % self.channels, offset / self.channels)
        } else {
            (offset / self.inner, offset % self.inner)
        }
    }

    /// The channel of a plane.
    pub(crate) const fn channel_of(&self, plane: usize) -> usize {
        plane % self.channels
    }

    /// Offsets of all elements of a channel, ascending.
    pub(crate) fn channel_offsets(&self, channel: usize) -> impl Iterator<Item = usize> + use<> {
        self.channel_runs(channel).flatten()
    }

    /// The pieces that a channel's elements lie in, ascending.
    pub(crate) fn channel_runs(&self, channel: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let Self { outer, channels, inner, .. } = *self;
        (0..outer).map(move |o| {
            let start = (o * channels + channel) * inner;
            start..start + inner
        })
    }
}
