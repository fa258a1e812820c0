"""The track of episodes: learning to learn from a support set (meta seq2seq, on SCAN and on mutual exclusivity)."""
