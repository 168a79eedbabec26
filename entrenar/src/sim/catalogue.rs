//! The catalogue of scenarios: every look-alike that must alarm nobody, and every incident that must be found. *(pure)*
//!
//! Each scenario is a builder over a [`Stage`]: it takes nodes of its own, sets its jobs and what goes wrong, and
//! signs labels for what is true. Its parameters are drawn from the stage's seed. Figures are those of H100; other
//! boards get the same shares of their power.

mod combined;
mod devices;
mod hangs;
mod memory;
mod nodes;
mod normal;
mod racks;
mod slow;

use super::stage::Stage;

/// What someone should hear of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: a look-alike.
    Nothing,
    /// Something for working hours.
    Warning,
    /// A page.
    Page,
}

/// A named scenario.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name in the catalogue: `N6`, `H2`, `X1`.
    pub id: &'static str,
    /// What happens, in a line.
    pub about: &'static str,
    /// What someone should hear of it.
    pub expect: Expect,
    /// The shortest trace that shows it whole, in seconds.
    pub needs_s: u32,
    /// Whether it touches the whole fleet, so that only look-alikes may share its stage.
    pub takes_all: bool,
    set: fn(&mut Stage),
}

impl Case {
    const fn new(
        id: &'static str,
        expect: Expect,
        about: &'static str,
        set: fn(&mut Stage),
    ) -> Self {
        Self {
            id,
            about,
            expect,
            needs_s: 2_400,
            takes_all: false,
            set,
        }
    }

    const fn needs(mut self, secs: u32) -> Self {
        self.needs_s = secs;
        self
    }

    const fn takes_all(mut self) -> Self {
        self.takes_all = true;
        self
    }

    /// Sets the scenario on a stage.
    pub fn set(&self, stage: &mut Stage) {
        (self.set)(stage);
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.id, self.about)
    }
}

/// Every scenario, family by family.
pub fn catalogue() -> impl Iterator<Item = &'static Case> {
    [
        normal::CASES,
        hangs::CASES,
        slow::CASES,
        devices::CASES,
        nodes::CASES,
        memory::CASES,
        racks::CASES,
        combined::CASES,
    ]
    .into_iter()
    .flatten()
}

/// The scenario of a name; `None` if there is none.
pub fn case(id: &str) -> Option<&'static Case> {
    catalogue().find(|case| case.id == id)
}

#[cfg(test)]
mod tests;
