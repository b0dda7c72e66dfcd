//! The resources of one kind: slots in a slab, found by name, chained in the order of their change.
//!
//! A slot is some fifty bytes beside its content, and a change moves it to the end of the chain without
//! an allocation. Slots are numbered, so that a reader can keep a bit a name (see `session`).

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::iter;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Name, Resource, Revision, Variants, Version};
use crate::model::Gateway;

/// No slot.
pub(super) const NOWHERE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    /// Of its last change; no two slots have the same, and one that is free has none.
    revision: Revision,
    content: Content,
    /// Its neighbours in the order of changes, while it lives.
    previous: u32,
    next: u32,
}

/// Nearly all names are of the first sort: the others are boxed.
#[derive(Debug)]
enum Content {
    /// One content for every gateway, and none that should not hold it.
    Everywhere(Resource),
    /// Some gateway has another content, or should not hold it though it may.
    Several(Box<Several>),
    /// Nobody should hold it, anybody may.
    Gone(Name),
    Free,
}

#[derive(Debug)]
struct Several {
    name: Name,
    variants: Variants,
    /// True when an Envoy of an unnamed gateway may still hold it though it should not.
    lost_by_every: bool,
    /// The same, of these gateways.
    lost_by: Vec<Gateway>,
}

impl Content {
    fn name(&self) -> &[u8] {
        match self {
            Self::Everywhere(resource) => resource.name_bytes(),
            Self::Several(several) => several.name.as_bytes(),
            Self::Gone(name) => name.as_bytes(),
            Self::Free => &[],
        }
    }

    fn lives(&self) -> bool {
        match self {
            Self::Everywhere(_) => true,
            Self::Several(several) => !several.variants.is_gone(),
            Self::Gone(_) | Self::Free => false,
        }
    }

    fn has_past(&self) -> bool {
        match self {
            Self::Everywhere(_) | Self::Free => false,
            Self::Several(several) => several.lost_by_every || !several.lost_by.is_empty(),
            Self::Gone(_) => true,
        }
    }

    fn is(&self, variants: &Variants) -> bool {
        match self {
            Self::Everywhere(resource) => {
                variants.named.is_empty() && variants.every.as_ref() == Some(resource)
            }
            Self::Several(several) => several.variants == *variants,
            Self::Gone(_) | Self::Free => variants.is_gone(),
        }
    }

    /// This content after a change to `variants`.
    fn replaced(self, name: Name, variants: Variants) -> Self {
        // All who may hold it should: whoever lost it has it again.
        if let Variants { every: Some(resource), named } = &variants
            && named.is_empty()
        {
            return Self::Everywhere(resource.clone());
        }
        let (before, mut lost_by_every, mut lost_by) = match self {
            Self::Free => (Variants::default(), false, Vec::new()),
            Self::Gone(_) => (Variants::default(), true, Vec::new()),
            Self::Everywhere(_) if variants.is_gone() => return Self::Gone(name),
            Self::Everywhere(resource) => (Variants::everywhere(resource), false, Vec::new()),
            Self::Several(several) => (several.variants, several.lost_by_every, several.lost_by),
        };
        // A gateway that was served by `every` and is named and hidden now has lost it, too; it can't
        // be told from the others here, so "every" lost it and `was_lost_by` looks at who holds it.
        let hidden = variants.named.iter().any(|(_, resource)| resource.is_none());
        lost_by_every |= before.every.is_some() && (variants.every.is_none() || hidden);
        for (gateway, resource) in before.named {
            if resource.is_some() && variants.view(&gateway.0).is_none() && !lost_by.contains(&gateway) {
                lost_by.push(gateway);
            }
        }
        let variants = if variants.is_gone() { Variants::default() } else { variants };
        Self::Several(Box::new(Several { name, variants, lost_by_every, lost_by }))
    }
}

/// A name with its content and its past.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    place: u32,
    slot: &'a Slot,
}

impl<'a> Entry<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        std::str::from_utf8(self.slot.content.name()).unwrap_or_default()
    }

    /// The revision of its last change.
    pub fn revision(&self) -> Revision {
        self.slot.revision
    }

    /// The number of its slot. Another name may have it once this one is forgotten, at a later revision.
    pub fn place(&self) -> u32 {
        self.place
    }

    /// What the Envoys of `gateway` should hold.
    pub fn view(&self, gateway: &str) -> Option<&'a Resource> {
        self.into_view(gateway)
    }

    pub(super) fn into_view(self, gateway: &str) -> Option<&'a Resource> {
        match &self.slot.content {
            Content::Everywhere(resource) => Some(resource),
            Content::Several(several) => several.variants.view(gateway),
            Content::Gone(_) | Content::Free => None,
        }
    }

    /// True when an Envoy of `gateway` may hold this name and should not.
    pub fn was_lost_by(&self, gateway: &str) -> bool {
        match &self.slot.content {
            Content::Everywhere(_) | Content::Free => false,
            Content::Gone(_) => true,
            Content::Several(several) => {
                several.variants.view(gateway).is_none()
                    && (several.lost_by_every || several.lost_by.iter().any(|lost| &*lost.0 == gateway))
            }
        }
    }
}

/// The resources of one kind.
#[derive(Debug)]
pub(super) struct Shelf {
    slots: Vec<Slot>,
    free: Vec<u32>,
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The ends of the chain of names that somebody should hold.
    first: u32,
    last: u32,
    len: usize,
    /// Names that somebody may hold and should not, by the revision of their change. One whose slot has
    /// another revision has changed again, and is passed over.
    lost: VecDeque<(Revision, u32)>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            first: NOWHERE,
            last: NOWHERE,
            len: 0,
            lost: VecDeque::new(),
        }
    }
}

impl Shelf {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn tombstones(&self) -> usize {
        self.lost.len()
    }

    fn slot(&self, place: u32) -> &Slot {
        &self.slots[place as usize]
    }

    fn slot_mut(&mut self, place: u32) -> &mut Slot {
        &mut self.slots[place as usize]
    }

    fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    fn find(&self, name: &str) -> Option<u32> {
        let hash = self.hash(name.as_bytes());
        let is_it = |place: &u32| self.slot(*place).content.name() == name.as_bytes();
        self.places.find(hash, is_it).copied()
    }

    pub(super) fn entry(&self, name: &str) -> Option<Entry<'_>> {
        let place = self.find(name)?;
        Some(Entry { place, slot: self.slot(place) })
    }

    pub(super) fn place_of(&self, name: &str, version: Version) -> Option<u32> {
        let has_it = |place: &u32| match &self.slot(*place).content {
            Content::Everywhere(resource) => resource.version == version,
            Content::Several(_) | Content::Gone(_) | Content::Free => false,
        };
        self.places.find(self.hash(name.as_bytes()), has_it).copied()
    }

    /// Gives a name this content at this revision; false when it has it already.
    pub(super) fn put(&mut self, name: Name, variants: Variants, revision: Revision) -> bool {
        let place = match self.find(&name) {
            Some(place) if self.slot(place).content.is(&variants) => return false,
            Some(place) => place,
            None if variants.is_gone() => return false,
            None => self.insert(name.as_bytes()),
        };
        self.unchain(place);
        let slot = self.slot_mut(place);
        slot.revision = revision;
        slot.content = std::mem::replace(&mut slot.content, Content::Free).replaced(name, variants);
        let (has_past, lives) = (slot.content.has_past(), slot.content.lives());
        if has_past {
            self.lost.push_back((revision, place));
        }
        if lives {
            self.chain(place);
        }
        true
    }

    /// A slot for a new name, still without content.
    fn insert(&mut self, name: &[u8]) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            // Names are bounded by memory long before: a slot and its content are hundreds of bytes.
            let place = u32::try_from(self.slots.len()).expect("fewer than four thousand million names");
            self.slots.push(Slot { revision: 0, content: Content::Free, previous: NOWHERE, next: NOWHERE });
            place
        });
        let hash = self.hash(name);
        let Self { places, slots, hasher, .. } = self;
        places.insert_unique(hash, place, |place| hasher.hash_one(slots[*place as usize].content.name()));
        place
    }

    fn unchain(&mut self, place: u32) {
        if !self.slot(place).content.lives() {
            return;
        }
        let Slot { previous, next, .. } = *self.slot(place);
        match previous {
            NOWHERE => self.first = next,
            previous => self.slot_mut(previous).next = next,
        }
        match next {
            NOWHERE => self.last = previous,
            next => self.slot_mut(next).previous = previous,
        }
        self.len -= 1;
    }

    fn chain(&mut self, place: u32) {
        let last = std::mem::replace(&mut self.last, place);
        match last {
            NOWHERE => self.first = place,
            last => self.slot_mut(last).next = place,
        }
        let slot = self.slot_mut(place);
        (slot.previous, slot.next) = (last, NOWHERE);
        self.len += 1;
    }

    pub(super) fn changed_since(&self, seen: Revision, hint: u32) -> impl Iterator<Item = Entry<'_>> {
        let mut place = self.first_behind(seen, hint);
        iter::from_fn(move || {
            let slot = self.slots.get(place as usize)?;
            let entry = Entry { place, slot };
            place = slot.next;
            Some(entry)
        })
    }

    /// The first slot of the chain that changed after `seen`. Costs what changed since, or nothing where
    /// the hint is good.
    fn first_behind(&self, seen: Revision, hint: u32) -> u32 {
        if let Some(slot) = self.slots.get(hint as usize)
            && slot.revision == seen
            && slot.content.lives()
        {
            return slot.next;
        }
        if self.slots.get(self.first as usize).is_none_or(|slot| slot.revision > seen) {
            return self.first;
        }
        let (mut place, mut behind) = (self.last, NOWHERE);
        while let Some(slot) = self.slots.get(place as usize)
            && slot.revision > seen
        {
            (place, behind) = (slot.previous, place);
        }
        behind
    }

    pub(super) fn lost_since(&self, seen: Revision, until: Revision) -> impl Iterator<Item = Entry<'_>> {
        let from = self.lost.partition_point(|(revision, _)| *revision <= seen);
        let marks = self.lost.range(from..).take_while(move |(revision, _)| *revision <= until);
        marks.filter_map(|(revision, place)| {
            let slot = self.slot(*place);
            (slot.revision == *revision).then_some(Entry { place: *place, slot })
        })
    }

    pub(super) fn compact(&mut self, floor: Revision) {
        while let Some((revision, place)) = self.lost.pop_front_if(|(revision, _)| *revision <= floor) {
            if self.slot(place).revision != revision {
                continue;
            }
            if let Content::Several(several) = &mut self.slot_mut(place).content
                && !several.variants.is_gone()
            {
                several.lost_by_every = false;
                several.lost_by = Vec::new();
                continue;
            }
            let hash = self.hash(self.slot(place).content.name());
            if let Ok(entry) = self.places.find_entry(hash, |held| *held == place) {
                entry.remove();
            }
            let slot = self.slot_mut(place);
            (slot.revision, slot.content) = (0, Content::Free);
            self.free.push(place);
        }
    }

    pub(super) fn floor_keeping(&self, keep: usize) -> Revision {
        self.lost.iter().rev().nth(keep).map_or(0, |(revision, _)| *revision)
    }
}
