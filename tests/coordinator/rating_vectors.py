"""Games rated by the openskill package, one JSON object a line on stdout. With a count: so many random games
from a seed; tests/coordinator/data/ratings.jsonl is the output of `rating_vectors.py 40 1`."""

import json
import random
import sys

from openskill.models import PlackettLuce

count, seed = int(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
for game in range(count):
    model = PlackettLuce()
    players = draw.choice([2, 2, 3, 5, 8, 20, 60])
    before = [[draw.uniform(5, 45), draw.uniform(0.5, 9)] for _ in range(players)]
    if game % 5 == 0:
        before = [[model.mu, model.sigma] for _ in range(players)]
    levels = draw.choice([players, players, max(2, players // 3), 1])
    ranks = [draw.randrange(levels) for _ in range(players)]
    teams = [[model.rating(mu=mu, sigma=sigma)] for mu, sigma in before]
    after = [[team[0].mu, team[0].sigma] for team in model.rate(teams, ranks=[float(r) for r in ranks])]
    print(json.dumps({"before": before, "ranks": ranks, "after": after}))
