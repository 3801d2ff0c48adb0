"""The axis alphabet, the named array types and `typed`.

B  rows of a batch          T  tokens of this call       S  capacity of a cache
D  target hidden            E  draft hidden              A  target features, 3 D or D
N  query heads              K  key/value heads           G  query heads a key/value head serves, N / K
H  head size                F  feed-forward width        L  layers
V  target vocabulary        W  draft vocabulary
"""

from beartype import beartype
from jaxtyping import Array, Float, Float32, Int32, jaxtyped

Positions = Int32[Array, "B T"]
Segments = Int32[Array, "B T"]
Lengths = Int32[Array, "B"]
Queries = Float[Array, "B K G T H"]
Keys = Float[Array, "B K H S"]
CachedKeys = Float[Array, "B K _ _"]  # Keys, or like Values where `backend.keys_like_values`
Values = Float[Array, "B K S H"]
Bias = Float32[Array, "#B T S"]
Angles = Float32[Array, "B T H"]

typed = jaxtyped(typechecker=beartype)
