use std::fmt::{self, Debug};
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Report {
    pub states: usize,
    pub depth: usize,
    pub took: Duration,
    /// Properties that do not hold.
    pub violated: Vec<&'static str>,
    /// Situations that were never reached.
    pub unreached: Vec<&'static str>,
    /// Situations that were reached.
    pub reached: Vec<&'static str>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            states,
            depth,
            took,
            ..
        } = self;
        write!(f, "{states} states, {depth} steps deep, {took:.1?}")?;
        for name in &self.reached {
            write!(f, "\n    reached: {name}")?;
        }
        for name in &self.unreached {
            write!(f, "\n    NEVER REACHED: {name}")?;
        }
        for name in &self.violated {
            write!(f, "\n    VIOLATED: {name}")?;
        }
        Ok(())
    }
}

/// What can be explored.
pub trait Explored: Debug + Clone + Hash + PartialEq + Send + Sync + 'static {}

impl<T: Debug + Clone + Hash + PartialEq + Send + Sync + 'static> Explored for T {}

/// Explores every state.
pub fn check<M>(model: M) -> Report
where
    M: Model<State: Explored, Action: Debug + PartialEq + Clone + Send + Sync>
        + Send
        + Sync
        + 'static,
{
    let started = Instant::now();
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::All)
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let names = |sometimes: bool, discovered: bool| {
        let properties: Vec<Property<M>> = checker.model().properties();
        let is = |p: &Property<M>| matches!(p.expectation, Expectation::Sometimes) == sometimes;
        let names = properties.iter().filter(|p| is(p)).map(|p| p.name);
        names
            .filter(|name| found.contains_key(name) == discovered)
            .collect()
    };
    Report {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: started.elapsed(),
        violated: names(false, true),
        unreached: names(true, false),
        reached: names(true, true),
    }
}

/// Looks for a way to violate `property`: breadth first, so that it is about the shortest. Returns
/// its steps, and how many states were looked at.
pub fn counterexample<M>(model: M, property: &'static str) -> (Option<Vec<String>>, usize)
where
    M: Model<State: Explored, Action: Debug + PartialEq + Clone + Send + Sync>
        + Send
        + Sync
        + 'static,
{
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyOf([property].into()))
        .spawn_bfs()
        .join();
    let show = |action: &M::Action| format!("{action:?}");
    let steps = checker.discovery(property);
    let steps = steps.map(|path| path.into_actions().iter().map(show).collect());
    (steps, checker.unique_state_count())
}
