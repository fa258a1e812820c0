"""A sweep of seconds on the embedded digits, for tests of commands."""

TINY = """\
version: 1
paper: mer
title: A sweep of seconds
track: vision
benchmark: {name: mnist-rotations, tasks: 3, train_per_task: 30, source: embedded}
model: {name: mlp, hidden: [20, 20]}
seeds: [0, 1]
variants:
  online: {method: online, lr: 0.01}
  independent: {method: independent, lr: 0.01}
  task_input: {method: task_input, lr: 0.01}
  ewc: {method: ewc, lr: 0.01, strength: 10.0, memories_per_task: 10}
  gem: {method: gem, lr: 0.01, margin: 0.5, memories_per_task: 12}
  er: {method: er, lr: 0.05, memories: 20, replay_batch: 10}
  er5: {method: er, algorithm: 5, lr: 0.01, memories: 20, replay_batch: 10}
  mer: {method: mer, lr: 0.05, memories: 20, replay_batch: 5, beta: 0.1, gamma: 0.9, batches_per_example: 2}
  mer6: {method: mer, algorithm: 6, lr: 0.05, memories: 20, replay_batch: 6, gamma: 0.3}
  mer7: {method: mer, algorithm: 7, lr: 0.02, memories: 20, replay_batch: 6, gamma: 0.3, s: 5.0}
quick:
  benchmark: {tasks: 2}
  seeds: [0]
  only: [online, er]
"""
