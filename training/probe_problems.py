"""The probe's problems: code with its hole in ⟦ ⟧, and in the comment behind it what must hold."""

PROBLEMS = r"""
def clamp(value, low, high):
    '''`value`, moved into the range low to high.'''
    if value < low:
        return low
⟦    if value > high:
        return high
⟧    return value
# assert candidate(5, 0, 3) == 3 and candidate(-1, 0, 3) == 0 and candidate(2, 0, 3) == 2


def running_total(numbers):
    '''Sums of the first one, two, three ... numbers.'''
    total = 0
    sums = []
    for number in numbers:
⟦        total += number
⟧        sums.append(total)
    return sums
# assert candidate([1, 2, 3]) == [1, 3, 6] and candidate([]) == []


def count_words(text):
    '''How often each word of `text` occurs, small letters.'''
    counts = {}
    for word in text.lower().split():
        counts[word] = ⟦counts.get(word, 0) + 1⟧
    return counts
# assert candidate('A b a') == {'a': 2, 'b': 1}


def transpose(rows):
    '''Rows to columns.'''
    return [⟦list(column) for column in zip(*rows)⟧]
# assert candidate([[1, 2], [3, 4]]) == [[1, 3], [2, 4]]


def binary_search(items, wanted):
    '''Index of `wanted` in sorted `items`, -1 if it is not there.'''
    low, high = 0, len(items) - 1
    while low <= high:
        middle = (low + high) // 2
        if items[middle] == wanted:
            return middle
        if items[middle] < wanted:
⟦            low = middle + 1
⟧        else:
            high = middle - 1
    return -1
# assert [candidate([1, 3, 5, 7], n) for n in (1, 7, 4)] == [0, 3, -1]


def chunks(items, size):
    '''Consecutive pieces of `items`, each of `size` items but the last.'''
    return [items[i:⟦i + size] for i in range(0, len(items), size)]⟧
# assert candidate([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]


def flatten(nested):
    '''All items of lists within lists, in order.'''
    flat = []
    for item in nested:
        if isinstance(item, list):
⟦            flat.extend(flatten(item))
        else:
            flat.append(item)
⟧    return flat
# assert candidate([1, [2, [3]], []]) == [1, 2, 3]


def parse_pairs(text):
    '''`a=1,b=2` to a dictionary of numbers.'''
    pairs = {}
    for part in text.split(","):
        ⟦name, value = part.split(⟧"=")
        pairs[name.strip()] = int(value)
    return pairs
# assert candidate('a=1, b=2') == {'a': 1, 'b': 2}


def moving_average(values, width):
    '''Means of each `width` consecutive values.'''
    return [⟦sum(values[i : i + width]) / width⟧ for i in range(len(values) - width + 1)]
# assert candidate([1, 2, 3, 4], 2) == [1.5, 2.5, 3.5]


def merge_sorted(left, right):
    '''One sorted list of two.'''
    merged = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            merged.append(left[i])
            i += 1
        else:
⟦            merged.append(right[j])
            j += 1
⟧    return merged + left[i:] + right[j:]
# assert candidate([1, 4], [2, 3, 5]) == [1, 2, 3, 4, 5]


def invert(mapping):
    '''Values to the sorted list of their keys.'''
    inverse = {}
    for key, value in mapping.items():
        inverse.⟦setdefault(value, []).append(key)⟧
    return {value: sorted(keys) for value, keys in inverse.items()}
# assert candidate({'a': 1, 'b': 1, 'c': 2}) == {1: ['a', 'b'], 2: ['c']}


def longest_run(items):
    '''Length of the longest stretch of equal items.'''
    best = run = 0
    last = object()
    for item in items:
⟦        run = run + 1 if item == last else 1
⟧        best = max(best, run)
        last = item
    return best
# assert candidate([1, 1, 2, 2, 2, 1]) == 3 and candidate([]) == 0


def digits_sum(number):
    '''Sum of the decimal digits of a non-negative number.'''
    total = 0
    while number:
        total += ⟦number % 10
        number //= 10
⟧    return total
# assert candidate(1234) == 10 and candidate(0) == 0
"""
