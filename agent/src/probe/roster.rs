//! The GPUs of a node through time: a GPU that was seen once is missed when it is gone. Pure.

use entrenar::gpu::GpuInfo;
use entrenar::report::Inventory;

/// Most GPUs that are remembered, present ones first. A node has up to 16, a MIG node up to 56 instances.
const MAX_GPUS: usize = 128;

/// Every GPU that this process has seen, and whether the last enumeration still had it.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    inventory: Inventory,
    present: Vec<bool>,
}

impl Roster {
    /// Nothing seen yet; the first GPUs make the generation after `generation`.
    pub(super) fn after(generation: u32) -> Self {
        Self {
            inventory: Inventory {
                generation,
                gpus: Vec::new(),
            },
            present: Vec::new(),
        }
    }

    /// Takes in an enumeration. Answers whether the inventory is a new generation: a GPU came, moved or was renamed.
    /// One that is gone keeps its place, so that it is missed by name.
    pub(super) fn seen(&mut self, found: Vec<GpuInfo>) -> bool {
        let gone = |gpu: &GpuInfo| !found.iter().any(|f| f.uuid == gpu.uuid);
        let missing: Vec<GpuInfo> = self
            .inventory
            .gpus
            .iter()
            .filter(|g| gone(g))
            .cloned()
            .collect();
        let mut all: Vec<(GpuInfo, bool)> = found.into_iter().map(|gpu| (gpu, true)).collect();
        all.extend(missing.into_iter().map(|gpu| (gpu, false)));
        all.truncate(MAX_GPUS);
        all.sort_by(|(a, a_here), (b, b_here)| {
            (a.index, !a_here, &a.uuid).cmp(&(b.index, !b_here, &b.uuid))
        });
        let (gpus, present): (Vec<GpuInfo>, Vec<bool>) = all.into_iter().unzip();
        self.present = present;
        let changed = gpus != self.inventory.gpus;
        if changed {
            self.inventory.gpus = gpus;
            self.inventory.generation += 1;
        }
        changed
    }

    /// The GPUs, in the order of a batch.
    pub(super) fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Whether the GPU at a place was there at the last enumeration.
    pub(super) fn is_present(&self, place: usize) -> bool {
        self.present.get(place).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each word is an enumeration: letters are GPUs in the order of their index. What comes out: the generation and
    /// the roster, missing GPUs in capitals.
    fn check(enumerations: &str, expected: &str) {
        let mut roster = Roster::after(0);
        let mut told = Vec::new();
        for word in enumerations.split_whitespace() {
            let gpu = |(index, name): (usize, char)| GpuInfo {
                uuid: name.to_string().into(),
                index: index as u32,
                ..GpuInfo::default()
            };
            roster.seen(
                word.trim_matches('-')
                    .chars()
                    .enumerate()
                    .map(gpu)
                    .collect(),
            );
            let letter = |(place, gpu): (usize, &GpuInfo)| {
                let name = gpu.uuid.as_str();
                if roster.is_present(place) {
                    name.to_owned()
                } else {
                    name.to_uppercase()
                }
            };
            let gpus: String = roster
                .inventory()
                .gpus
                .iter()
                .enumerate()
                .map(letter)
                .collect();
            told.push(format!("{}{gpus}", roster.inventory().generation));
        }
        assert_eq!(told.join(" "), expected, "{enumerations}");
    }

    #[test]
    fn the_same_gpus_are_one_generation() {
        check("abc abc", "1abc 1abc");
    }

    #[test]
    fn a_gpu_that_is_gone_keeps_its_place_until_it_is_back() {
        check("abc ab abc", "1abc 1abC 1abc");
        check("ab - ab", "1ab 1AB 1ab");
    }

    #[test]
    fn a_gpu_that_moves_up_makes_a_new_generation_and_hides_nobody() {
        check("abc ac", "1abc 2acB");
    }
}
