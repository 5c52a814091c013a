"""Why a weight went, what that cost, and where: questions put to a run after it has finished."""
