"""The words of generated run names."""

from typing import Final

FIRST: Final = """
amber ample azure bold brave breezy bright brisk calm candid cedar clear clever cobalt copper coral cosmic crimson
crisp curious daring deft dewy eager early earnest easy ember fair fearless fleet fluent fond frosty gentle giddy
gilded glad golden grand happy hardy hazel honest humble ivory jade jolly keen kind lively lucid lucky lunar mellow
merry mighty misty modest neat nimble noble olive opal patient plucky polar proud quick quiet radiant rapid ready
royal ruby rustic sage serene sharp silent silver sincere smooth snowy solar sound spry steady still stoic sturdy
sunny swift teal tidy topaz tranquil trusty upbeat velvet vivid warm whole wild wise witty young zesty
""".split()  # noqa: SIM905 - a list of words is easier to read than a list of literals

SECOND: Final = """
acorn anchor arrow aspen aurora badger basin beacon birch bison bluff breeze bridge brook canyon cedar cliff cloud
comet condor coral crane creek crest delta dolphin dove dune eagle falcon fern field finch fjord forest fox galaxy
garden geyser glacier glade grove gull harbor hare hawk heron hill ibis island jay kestrel lagoon lake lantern lark
laurel leaf ledge linden lotus lynx maple marlin marsh meadow mesa meteor moon moss nebula oak ocean orbit orchid
osprey otter owl palm peak pebble pine planet plateau plover pond prairie puffin quartz quasar rain raven reef ridge
river robin sail salmon seal shore sparrow spruce star stone stork stream summit sun swan thistle thunder tide trail
tulip valley violet wave willow wind wolf wren
""".split()  # noqa: SIM905 - a list of words is easier to read than a list of literals
