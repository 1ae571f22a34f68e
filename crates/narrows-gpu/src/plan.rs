//! What an encoder decides before it has seen a symbol.

use std::sync::Arc;

use narrows::stream::{self, Chooser, Geometry, Tables};
use narrows::{
    Affine, Clip, CoderChoice, EncodeOptions, Layout, LayoutChoice, Planes, Profile, Quantizer, Shape,
};

use crate::arrangement::{arrange, class_starts};
use crate::error::{Error, Result};

/// How values become symbols.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Map {
    /// So many levels over the tensor's own range.
    Range(u16),
    /// A calibrated map.
    Fixed(Affine),
}

impl Map {
    pub(crate) const fn levels(&self) -> u16 {
        match self {
            Self::Range(levels) => *levels,
            Self::Fixed(affine) => affine.levels(),
        }
    }
}

/// Everything about a frame that follows from the options and the shape.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) planes: Planes,
    pub(crate) layout: Layout,
    pub(crate) map: Map,
    pub(crate) geometry: Geometry,
    starts: Vec<usize>,
    pub(crate) profile: Option<Arc<Profile>>,
}

impl Plan {
    /// The plan for tensors of this shape; `reshape` is the rows of a modified CSR.
    pub(crate) fn new(options: &EncodeOptions, shape: &Shape, reshape: Option<usize>) -> Result<Self> {
        let axis = options.profile.as_ref().map(|profile| profile.axis()).or(options.axis);
        let planes = Planes::new(shape, axis.unwrap_or_else(|| Planes::usual_axis(shape)))?;
        let (map, layout) = match &options.profile {
            Some(profile) => (Map::Fixed(*profile.affine()), Layout::Planes),
            None => (map(&options.quantizer)?, layout(options, &planes, reshape)?),
        };
        let rate = match &options.profile {
            Some(profile) => profile_rate(profile),
            // Half of what bit packing needs: features at 2 to 8 bits take 0.3 to 0.7 of it.
            None => f64::from(map.levels()).log2() / 2.0,
        };
        let geometry = arrange(&planes, layout, rate, options.target);
        let starts = match (&options.profile, layout) {
            (None, Layout::Planes) => class_starts(usize::from(map.levels())),
            _ => Vec::new(),
        };
        Ok(Self { shape: *shape, planes, layout, map, geometry, starts, profile: options.profile.clone() })
    }

    /// The same for the codec that puts a frame together.
    pub(crate) fn tables(&self) -> Tables<'_> {
        match (&self.profile, self.layout) {
            (Some(profile), _) => Tables::Profile(profile),
            (None, Layout::Planes) => Tables::Neighbours(&self.starts),
            // How many are not 0 is not known yet.
            (None, Layout::CsrJoint { rows }) => Tables::Csr { rows, nonzeros: 0 },
            _ => Tables::Order0,
        }
    }

    /// Where the classes of neighbours begin, after the first; none of them if they are a profile's.
    pub(crate) fn starts(&self) -> &[usize] {
        &self.starts
    }

    pub(crate) fn alphabet(&self) -> usize {
        let levels = usize::from(self.map.levels());
        self.csr().map_or(levels, |(_, columns)| levels.max(columns + 1))
    }

    /// Rows and columns of a modified CSR.
    pub(crate) fn csr(&self) -> Option<(usize, usize)> {
        let Layout::CsrJoint { rows } = self.layout else { return None };
        Some((rows, self.shape.elements() / rows))
    }

    /// Number of tables.
    pub(crate) fn table_count(&self) -> usize {
        match &self.profile {
            Some(profile) => stream::profile_model(profile).1.len(),
            None => self.starts.len() + 1,
        }
    }

    /// Whether neighbours choose the table; if so, the class of each bin of their sum, and the sum's shift.
    pub(crate) fn classes(&self) -> Option<([u8; 64], u32)> {
        if let Some(profile) = &self.profile {
            let (Chooser::Neighbours { of_bin, shift }, _) = stream::profile_model(profile) else {
                return None;
            };
            return Some((*of_bin, shift));
        }
        let (_, shift) = stream::bins(self.alphabet());
        let of_bin =
            std::array::from_fn(|bin| self.starts.iter().filter(|&&start| start <= bin).count() as u8);
        (self.layout == Layout::Planes).then_some((of_bin, shift))
    }
}

fn map(quantizer: &Quantizer) -> Result<Map> {
    match *quantizer {
        Quantizer::Aiq { bits: bits @ 1..=8, clip: Clip::Full } => Ok(Map::Range(1 << bits)),
        Quantizer::Aiq { bits, clip: Clip::Full } => {
            let (what, value, allowed) = ("bits", f64::from(bits), "1 to 8 (2 to 8 in the reference work)");
            Err(narrows::Error::InvalidOption { what, value, allowed }.into())
        }
        Quantizer::Fixed(affine) => Ok(Map::Fixed(affine)),
        Quantizer::Aiq { .. } => {
            Err(Error::NotOffered { what: "a clipped range (calibrate a profile instead)" })
        }
        Quantizer::PerChannel { .. } => Err(Error::NotOffered { what: "a quantiser per channel" }),
        Quantizer::Lossless => Err(Error::NotOffered { what: "lossless mode" }),
    }
}

fn layout(options: &EncodeOptions, planes: &Planes, reshape: Option<usize>) -> Result<Layout> {
    if !matches!(options.coder, CoderChoice::Auto | CoderChoice::Rans) {
        return Err(Error::NotOffered { what: "a coder other than rANS" });
    }
    match options.layout {
        LayoutChoice::Planes => Ok(Layout::Planes),
        LayoutChoice::Auto if planes.positions() > 1 => Ok(Layout::Planes),
        LayoutChoice::Auto | LayoutChoice::Natural => Ok(Layout::Natural),
        LayoutChoice::CsrJoint(_) => {
            let what = "a modified CSR without its rows given";
            let rows = reshape.ok_or(Error::NotOffered { what })?;
            check_reshape(rows, planes.count() * planes.positions())?;
            Ok(Layout::CsrJoint { rows })
        }
        LayoutChoice::CsrSeparate(_) => {
            Err(Error::NotOffered { what: "encoding the CSR with separate tables" })
        }
    }
}

/// Columns of a modified CSR that a table of the kernels has room for, and elements whose sequence is counted in 32 bits.
const MOST_COLUMNS: usize = 2047;
const MOST_CSR_ELEMENTS: usize = 1 << 29;

fn check_reshape(rows: usize, elements: usize) -> Result<()> {
    let least = elements.div_ceil(MOST_COLUMNS);
    let fits = rows > 0 && elements.is_multiple_of(rows) && rows >= least && elements <= MOST_CSR_ELEMENTS;
    let (what, value) = ("rows of the modified CSR", rows as f64);
    let allowed = "a divisor of the elements (at most 2^29) that leaves at most 2,047 columns";
    if fits { Ok(()) } else { Err(narrows::Error::InvalidOption { what, value, allowed }.into()) }
}

/// Mean entropy of a profile's tables, bits a symbol; how often each is used is not known.
fn profile_rate(profile: &Profile) -> f64 {
    let (_, tables) = stream::profile_model(profile);
    let entropy = |table: &stream::Table| {
        let full = f64::from(1_u32 << table.bits());
        let bits = |&f: &u16| if f == 0 { 0.0 } else { f64::from(f) / full * (full / f64::from(f)).log2() };
        table.frequencies().iter().map(bits).sum::<f64>()
    };
    tables.iter().map(entropy).sum::<f64>() / tables.len() as f64
}
