use std::fmt;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use crate::world::{Action, World};

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

/// Explores every state.
pub fn check(world: World) -> Report {
    let started = Instant::now();
    let checker = world
        .checker()
        .threads(available_parallelism().map_or(1, usize::from))
        .finish_when(HasDiscoveries::All)
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let names = |sometimes: bool, discovered: bool| {
        let properties: Vec<Property<World>> = world.properties();
        let is = |p: &Property<World>| matches!(p.expectation, Expectation::Sometimes) == sometimes;
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
pub fn counterexample(world: World, property: &'static str) -> (Option<Vec<String>>, usize) {
    let checker = world
        .checker()
        .finish_when(HasDiscoveries::AnyOf([property].into()))
        .spawn_bfs()
        .join();
    let show = |action: &Action| format!("{action:?}");
    let steps = checker.discovery(property);
    let steps = steps.map(|path| path.into_actions().iter().map(show).collect());
    (steps, checker.unique_state_count())
}

pub fn histogram(world: World) {
    use std::collections::*;
    use std::hash::*;
    let mut seen = HashSet::new();
    let (mut t, mut n) = ([Duration::ZERO; 4], 0usize);
    let names: Vec<_> = world.properties().iter().map(|p| p.name).collect();
    let mut pt = vec![Duration::ZERO; names.len()];
    let mut queue: VecDeque<_> = world.init_states().into();
    let mut all: HashMap<String, usize> = HashMap::new();
    let mut one: HashMap<String, HashSet<u64>> = HashMap::new();
    while let Some(state) = queue.pop_front() {
        let t0 = Instant::now();
        let mut h = DefaultHasher::new();
        state.hash(&mut h);
        t[0] += t0.elapsed();
        n += 1;
        if !seen.insert(h.finish()) {
            continue;
        }
        *all.entry(state.summary()).or_default() += 1;
        for (k, v) in state.parts() {
            one.entry(k).or_default().insert(v);
        }
        if false {
            continue;
        }
        for (i, p) in world.properties().iter().enumerate() {
            let t0 = Instant::now();
            std::hint::black_box((p.condition)(&world, &state));
            pt[i] += t0.elapsed();
        }
        let mut actions = vec![];
        let t0 = Instant::now();
        world.actions(&state, &mut actions);
        for a in actions {
            if let Some(n) = world.next_state(&state, a) {
                queue.push_back(n);
            }
        }
        if seen.len() > 500_000 {
            break;
        }
    }
    println!("generated {n}: hash {:?}, next {:?}", t[0], t[1]);
    for (n, t) in names.iter().zip(&pt) {
        println!("{t:?} {n}");
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|x| std::cmp::Reverse(x.1));
    println!("{} states", seen.len());
    for (k, n) in all.iter().take(15) {
        println!("{n:8} {k}");
    }
    for (k, n) in one {
        println!("{:8} {k}", n.len());
    }
}
