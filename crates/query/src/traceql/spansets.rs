//! Which spans of a trace a query finds.

use super::ast::{Aggregate, Field, Gives, Op, Pipeline, Relation, Spanset, Stage};
use super::eval::{Val, View, compare, fold};
use std::collections::HashSet;

/// Spans of one trace, by position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group<'a> {
    /// Positions, ascending.
    pub spans: Vec<usize>,
    /// What `by()` grouped them by: the expression's name and its value.
    pub by: Vec<(String, Val<'a>)>,
}

/// Most groups of one trace.
const MAX_GROUPS: usize = 1000;

impl<'a> View<'a> {
    /// Runs a pipeline over the whole trace.
    pub(super) fn run(&self, pipeline: &Pipeline) -> Vec<Group<'a>> {
        let all = Group { spans: (0..self.len()).collect(), by: Vec::new() };
        self.stages(pipeline, vec![all])
    }

    fn stages(&self, pipeline: &Pipeline, mut groups: Vec<Group<'a>>) -> Vec<Group<'a>> {
        for stage in &pipeline.0 {
            match stage {
                Stage::Spanset(set) => {
                    for group in &mut groups {
                        group.spans = self.spanset(set, &group.spans);
                    }
                }
                Stage::By(field) => groups = groups.iter().flat_map(|g| self.by(g, field)).collect(),
                Stage::Coalesce => {
                    let mut spans: Vec<usize> = groups.iter().flat_map(|g| g.spans.clone()).collect();
                    spans.sort_unstable();
                    spans.dedup();
                    groups = vec![Group { spans, by: Vec::new() }];
                }
                Stage::Select(_) => {}
                Stage::Aggregate { what, of, op, with } => {
                    groups.retain(|g| self.aggregate(g, *what, of.as_ref(), *op, with));
                }
            }
            groups.retain(|g| !g.spans.is_empty());
            groups.truncate(MAX_GROUPS);
        }
        groups
    }

    fn by(&self, group: &Group<'a>, field: &Field) -> Vec<Group<'a>> {
        let mut out: Vec<Group<'a>> = Vec::new();
        for &at in &group.spans {
            let value = self.value(at, field);
            match out.iter().position(|g| g.by.last().is_some_and(|(_, v)| *v == value)) {
                Some(known) => out[known].spans.push(at),
                None if out.len() < MAX_GROUPS => {
                    let mut by = group.by.clone();
                    by.push((super::label(field), value));
                    out.push(Group { spans: vec![at], by });
                }
                None => {}
            }
        }
        out
    }

    fn aggregate(
        &self,
        group: &Group<'_>,
        what: Aggregate,
        of: Option<&Field>,
        op: Op,
        with: &Field,
    ) -> bool {
        let Some(with) = fold(with) else { return false };
        let numbers = || {
            let value = |at: &usize| of.map_or(Val::Nil, |f| self.value(*at, f));
            group.spans.iter().map(value).filter_map(|v| match v {
                Val::Int(n) | Val::Duration(n) => Some(n as f64),
                Val::Float(n) => Some(n),
                _ => None,
            })
        };
        let found = match what {
            Aggregate::Count => Some(group.spans.len() as f64),
            Aggregate::Sum => numbers().reduce(|a, b| a + b),
            Aggregate::Min => numbers().reduce(f64::min),
            Aggregate::Max => numbers().reduce(f64::max),
            Aggregate::Avg => {
                let n = numbers().count();
                (n > 0).then(|| numbers().sum::<f64>() / n as f64)
            }
        };
        found.is_some_and(|n| compare(op, &Val::Float(n), &with))
    }

    /// The spans among `among` that a spanset has.
    fn spanset(&self, set: &Spanset, among: &[usize]) -> Vec<usize> {
        match set {
            Spanset::Filter(field) => among.iter().copied().filter(|at| self.holds(*at, field)).collect(),
            Spanset::And(a, b) => {
                let (left, right) = (self.spanset(a, among), self.spanset(b, among));
                if left.is_empty() || right.is_empty() { Vec::new() } else { union(left, right) }
            }
            Spanset::Or(a, b) => union(self.spanset(a, among), self.spanset(b, among)),
            Spanset::Pipeline(inner) => {
                let start = Group { spans: among.to_vec(), by: Vec::new() };
                self.stages(inner, vec![start]).into_iter().fold(Vec::new(), |all, g| union(all, g.spans))
            }
            Spanset::Structure(relation, gives, a, b) => {
                let (left, right) = (self.spanset(a, among), self.spanset(b, among));
                self.structure(*relation, *gives, &left, &right)
            }
        }
    }

    fn structure(&self, relation: Relation, gives: Gives, left: &[usize], right: &[usize]) -> Vec<usize> {
        let related = self.related(relation, left, right);
        match gives {
            Gives::Right => related,
            Gives::Unrelated => {
                let related: HashSet<usize> = related.into_iter().collect();
                right.iter().copied().filter(|at| !related.contains(at)).collect()
            }
            Gives::Both => {
                let back = match relation {
                    Relation::Child => Relation::Parent,
                    Relation::Parent => Relation::Child,
                    Relation::Descendant => Relation::Ancestor,
                    Relation::Ancestor => Relation::Descendant,
                    Relation::Sibling => Relation::Sibling,
                };
                union(related, self.related(back, right, left))
            }
        }
    }

    /// The spans on the right that stand in a relation to one on the left.
    fn related(&self, relation: Relation, left: &[usize], right: &[usize]) -> Vec<usize> {
        let nodes = &self.tree.nodes;
        let set: HashSet<usize> = left.iter().copied().collect();
        // Spans that have one of the left above or below them, each looked at once.
        let mut marked = vec![false; nodes.len()];
        match relation {
            Relation::Child => {
                left.iter().flat_map(|at| &nodes[*at].children).for_each(|c| marked[*c] = true);
            }
            Relation::Parent => {
                left.iter().filter_map(|at| nodes[*at].parent).for_each(|p| marked[p] = true);
            }
            Relation::Descendant => {
                // Parents stand before children in this order.
                for &at in &self.tree.order {
                    marked[at] = nodes[at].parent.is_some_and(|p| marked[p] || set.contains(&p));
                }
            }
            Relation::Ancestor => {
                for &at in self.tree.order.iter().rev() {
                    if let Some(p) = nodes[at].parent {
                        marked[p] |= marked[at] || set.contains(&at);
                    }
                }
            }
            Relation::Sibling => {
                let mut of_parent = std::collections::HashMap::<usize, usize>::new();
                for parent in left.iter().filter_map(|at| nodes[*at].parent) {
                    *of_parent.entry(parent).or_default() += 1;
                }
                for &at in right {
                    let others = nodes[at].parent.and_then(|p| of_parent.get(&p)).copied().unwrap_or(0);
                    marked[at] = others > usize::from(set.contains(&at));
                }
            }
        }
        right.iter().copied().filter(|at| marked[*at]).collect()
    }
}

fn union(a: Vec<usize>, b: Vec<usize>) -> Vec<usize> {
    let mut all = a;
    all.extend(b);
    all.sort_unstable();
    all.dedup();
    all
}
