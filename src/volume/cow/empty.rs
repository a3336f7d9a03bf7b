//! A layer that is to go on top of a disk in use.

use super::blocks::Blocks;
use super::growth::Growth;
use super::header::Header;
use super::layer::Layer;
use super::load::read_map;
use super::map::Map;
use super::settled::Settled;
use super::space::Space;
use crate::block::{DiskBackend, DiskInfo};
use crate::error::Result;
use crate::event::{Event, Io};

/// A layer to which nothing was written, without its base yet.
pub(crate) struct EmptyLayer<T> {
    top: T,
    header: Header,
    map: Map,
    space: Space,
    keeper: Box<dyn Blocks + Send>,
    growth: Growth,
}

impl<T: DiskBackend> EmptyLayer<T> {
    /// The layer of a file, whose data `top` and `keeper` are.
    pub(crate) fn open(header: Header, top: T, mut keeper: impl Blocks + Send + 'static) -> Result<Self> {
        let (map, space) = read_map(&mut keeper, &header)?;
        Ok(Self { top, header, map, space, keeper: Box::new(keeper), growth: Growth::default() })
    }

    /// By which it is told that its file has grown, once it is on top.
    pub(crate) fn growth(&self) -> Growth {
        self.growth.clone()
    }

    /// What it is like as a disk, but for its base.
    pub(crate) fn info(&self) -> DiskInfo {
        Layer::<T, T>::info_over(&self.header, self.top.info(), None)
    }

    pub(crate) fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.top.attach(io)
    }

    pub(crate) fn woken(&mut self, io: &mut Io, event: &Event) {
        self.top.woken(io, event);
    }

    /// Both have attached. What was written to the base is made stable, and then `settled` is told.
    pub(crate) fn on_top_of<B: DiskBackend>(self, base: B, settled: Settled, io: &mut Io) -> Layer<T, B> {
        let Self { top, header, map, space, keeper, growth } = self;
        Layer::new(top, base, header, map, space).told_by(growth).kept_by(keeper).settling(settled, io)
    }
}
